"""The changing state of one build: its nodes, what is ready, what runs, and what has ended."""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from llmbuild.canonical import Digest
from llmbuild.engine.bind import Bound
from llmbuild.engine.hit_counts import Use
from llmbuild.engine.lookup import Cached
from llmbuild.engine.outcome import Outcome, Status
from llmbuild.engine.task import AllFiles, Files, JsonFields, Task
from llmbuild.engine.tree import Tree
from llmbuild.errors import UsageError


@dataclass(slots=True)
class Node:
    """A task on its way: `waiting_for` are the labels whose output it needs and that have not ended yet."""

    task: Task
    order: int
    waiting_for: set[str]
    must_run: bool
    bound: Bound | None = None
    digest: Digest | None = None
    backtracks: int = 0
    active: bool = False
    peak: int | None = None
    """The predicted peak of its memory in bytes, once computed."""
    told: bool = False
    """Whether it was reported that the task waits for memory."""

    @property
    def action(self) -> Digest:
        """The digest of the action that the task is, once it is bound."""
        assert self.digest is not None, "only bound tasks are looked up and run"
        return self.digest


@dataclass(slots=True)
class Build:
    """The state of one `Scheduler.run`.

    `ready` are tasks whose inputs are all there, by plan order.  `running` maps an action to the labels that wait for it,
    `memory` to its predicted peak in bytes.  `finished` are the results that this build has found or made, `ran` those
    that it made, `ran_before` the tasks that had run when they were sent back to run again.
    """

    nodes: dict[str, Node]
    dependents: dict[str, list[str]]
    ready: list[tuple[int, str]] = field(default_factory=list)
    running: dict[Digest, list[str]] = field(default_factory=dict)
    memory: dict[Digest, int] = field(default_factory=dict)
    finished: dict[Digest, Cached] = field(default_factory=dict)
    ran: set[Digest] = field(default_factory=set)
    ran_before: set[str] = field(default_factory=set)
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    trees: dict[str, Tree] = field(default_factory=dict)
    stopped: bool = False
    interrupted: bool = False

    @staticmethod
    def of(tasks: Sequence[Task], force: Collection[str]) -> Build:
        """The state before anything has happened.  Raises UsageError for two equal labels or an unknown input."""
        nodes: dict[str, Node] = {}
        dependents: dict[str, list[str]] = defaultdict(list)
        for order, task in enumerate(tasks):
            if task.label in nodes:
                raise UsageError(f"two tasks have the label {task.label}")
            waiting_for = {ref.task for ref in task.inputs.values()}
            nodes[task.label] = Node(task, order, waiting_for, task.label in force)
        for label, node in nodes.items():
            for upstream in node.waiting_for:
                if upstream not in nodes:
                    raise UsageError(f"{label} needs {upstream}, which is not in the plan")
                dependents[upstream].append(label)
        build = Build(nodes, dependents)
        for label, node in nodes.items():
            if not node.waiting_for:
                build.make_ready(label)
        return build

    def make_ready(self, label: str) -> None:
        """Let a task be bound and looked up, unless it is on its way already."""
        node = self.nodes[label]
        if not node.active:
            node.active = True
            heapq.heappush(self.ready, (node.order, label))

    def release(self, label: str) -> None:
        """Notify the tasks that read from a task that its output is there."""
        for dependent in self.dependents.get(label, ()):
            waiting = self.nodes[dependent].waiting_for
            if label in waiting:
                waiting.discard(label)
                if not waiting and dependent not in self.outcomes:
                    self.make_ready(dependent)

    def send_back(self, label: str, missing: Digest | None) -> bool:
        """Make a task wait until what makes the blob `missing` among its inputs has run again.

        Returns False when no task makes it: a narrowed tree or a projected value, which binding writes again.
        """
        node = self.nodes[label]
        producers = {
            ref.task
            for ref in node.task.inputs.values()
            if missing in {self.trees[ref.task].digest, *(f.digest for f in self.trees[ref.task].files)}
        }
        node.waiting_for |= producers
        for producer in producers:
            upstream = self.nodes[producer]
            if upstream.digest in self.finished:
                del self.finished[upstream.digest]
                self.ran.discard(upstream.digest)
            earlier = self.outcomes.pop(producer, None)
            if earlier is not None and earlier.status is Status.RAN:
                self.ran_before.add(producer)
            upstream.must_run = True
            self.make_ready(producer)
        return bool(producers)

    def uses(self) -> dict[str, Use]:
        """How many tasks of each kind had a result and how many had to run, as far as they ended well."""
        ended = Counter((self.nodes[label].task.kind, outcome.status) for label, outcome in self.outcomes.items())
        kinds = sorted({kind for kind, status in ended if status in (Status.RAN, Status.CACHED)})
        return {kind: Use(ended[kind, Status.CACHED], ended[kind, Status.RAN]) for kind in kinds}

    def needs(self) -> tuple[tuple[int, ...], ...]:
        """For each task the positions of those it reads from."""
        nodes = self.nodes
        return tuple(
            tuple(sorted({nodes[ref.task].order for ref in node.task.inputs.values()})) for node in nodes.values()
        )


def input_size(trees: Mapping[str, Tree], task: Task) -> int:
    """The bytes of the files that a task whose inputs are all built will see."""
    size = 0
    for ref in task.inputs.values():
        tree = trees[ref.task]
        match ref.select:
            case AllFiles():
                size += sum(entry.size for entry in tree.files)
            case Files(patterns):
                size += sum(entry.size for entry in tree.select(patterns).files)
            case JsonFields():
                # A handful of fields weighs nothing beside what else a task reads.
                pass
    return size
