"""The engine against a naive oracle: random graphs and random edits, damage and failures between builds.

After each build, with one job or with several, every output must be what rebuilding everything gives, and no task may
have run without a reason that the oracle confirms.  2,000 sequences, a quarter of them in CI; LLMBUILD_MODEL_SEQUENCES asks for
another number.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from llmbuild.canonical import digest_bytes
from llmbuild.engine import events, fs
from llmbuild.engine.bind import Bound
from llmbuild.engine.install import Installation, install
from llmbuild.engine.lookup import cached
from llmbuild.engine.outcome import BuildResult, Status
from llmbuild.engine.scheduler import Scheduler
from llmbuild.engine.store import Store
from llmbuild.engine.task import JsonFields, Task
from llmbuild.executors.inline import InlineExecutor
from llmbuild.plan.observed import Observed
from llmbuild.plan.planner import Built, Lost, Plan, make_plan
from llmbuild.plan.reasons import (
    MISSING,
    Cascade,
    Evicted,
    Forced,
    InputChanged,
    NeverBuilt,
    OutputCorrupt,
    OutputMissing,
    ParameterChanged,
    Reason,
    ToolChanged,
    changes,
)
from llmbuild.report.events import Explained
from llmbuild.workspace.store_knowledge import StoreKnowledge
from tests.helpers.engine_build import snapshot
from tests.helpers.oracle import (
    SELECTIONS,
    Content,
    Ideal,
    Node,
    Oracle,
    content_bytes,
    content_name,
    decode_node,
    mixed,
    rebuild_everything,
    tree_of,
)
from tests.helpers.proof_kinds import MODULE, PARAMS, TOOLS, WORLD
from tests.helpers.ram import UnsyncedFs, ram_directory

PARTS = 4
SEQUENCES = int(os.environ.get("LLMBUILD_MODEL_SEQUENCES", "2000"))
IDENTITIES = ("x1", "x2", "y1")


@dataclass
class Counts:
    """What the sequences amounted to, so that a test can say that all of it happened."""

    sequences: int = 0
    builds: int = 0
    runs: int = 0
    cached: int = 0
    failed: int = 0
    cut_off: int = 0
    reasons: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Moment:
    """What was true when a task was queued: other tasks go on, and may make again what it lacked before it starts."""

    whole: bool
    """Whether the task's result was in the store, every byte of it."""
    damaged: frozenset[Content]


class Memoryless:
    """In place of the index over traces, which decides nothing while the history is there."""

    def add(self, traces: object) -> None:
        pass

    def latest(self, project: str) -> dict[str, str]:
        return {}


class Machine:
    """One project in one store, and the oracle beside it."""

    def __init__(self, root: Path, nodes: list[Node], counts: Counts) -> None:
        self.root = root
        self.nodes = nodes
        self.counts = counts
        self.oracle = Oracle()
        self.labels = [node.label for node in nodes]
        self.dist: dict[str, bytes] = {}
        WORLD.tools = dict.fromkeys(TOOLS, "x1")
        WORLD.failing = set()
        (root / "project").mkdir(parents=True)

    # Edits.

    def edit(self, number: int) -> None:
        """One edit from the bits of a number."""
        number = mixed(number)
        what, number = number % 12, number // 12
        node = self.nodes[number % len(self.nodes)]
        number //= len(self.nodes)
        if what <= 1:
            node.values[PARAMS[number % 3]] = number // 3 % 3
        elif what == 2:
            WORLD.tools[TOOLS[number % 2]] = IDENTITIES[number // 2 % 3]
        elif what == 3:
            if node.inputs:
                at = number % len(node.inputs)
                node.inputs[at] = (node.inputs[at][0], number // 4 % len(SELECTIONS))
        elif what in (4, 5):
            self.damage_blob(number, flip=what == 5)
        elif what == 6:
            self.damage_trace(number)
        elif what in (7, 8):
            self.damage_dist(number, how=number // 64 % 3)
        elif what == 9:
            node.installed = not node.installed
        elif node.label in WORLD.failing:
            WORLD.failing.discard(node.label)
        else:
            WORLD.failing.add(node.label)

    def damage_blob(self, number: int, *, flip: bool) -> None:
        paths = sorted((self.root / "store" / "blobs").glob("??/*"))
        if not paths:
            return
        path = paths[number % len(paths)]
        content = self.oracle.names[path.parent.name + path.name]
        data = bytearray(path.read_bytes())
        path.unlink()
        if flip:
            data[number // 7 % len(data)] ^= 1 << number % 8
            path.write_bytes(data)
            path.chmod(0o444)
        self.oracle.lose(content, damaged=flip)
        if flip and bytes(data) == content_bytes(content):
            # The second flip of the same bit.
            self.oracle.add(content)

    def damage_trace(self, number: int) -> None:
        paths = sorted((self.root / "store" / "traces").glob("??/*.json"))
        if not paths:
            return
        path = paths[number % len(paths)]
        key = self.oracle.actions[path.parent.name + path.stem]
        data = path.read_bytes()
        path.unlink()
        if number % 3:
            # What an earlier edit cut to nothing stays empty.
            path.write_bytes(data[: number // 3 % max(1, len(data))])
        self.oracle.traces.pop(key, None)

    def damage_dist(self, number: int, how: int) -> None:
        paths = sorted(path for path in self.dist if (self.root / "project" / path).exists())
        if not paths:
            return
        path = self.root / "project" / paths[number % len(paths)]
        data = path.read_bytes()
        inode = path.stat().st_ino
        if how == 2:
            # An edit in place reaches the blob through the hard link.
            path.chmod(0o644)
            path.write_bytes(data + b"!")
            for blob in (self.root / "store" / "blobs").glob("??/*"):
                if blob.stat().st_ino == inode:
                    self.oracle.lose(self.oracle.names[blob.parent.name + blob.name], damaged=True)
            return
        path.unlink()
        if how == 1:
            path.write_bytes(data[:-1])

    # Builds.

    def build(self, number: int) -> None:
        """Plan, build and install, and hold each against the oracle."""
        number = mixed(number)
        keep_going, planned = bool(number & 1), bool(number & 2)
        force = {self.labels[number // 16 % len(self.labels)]} if number & 12 == 12 else set()
        jobs = 1 + number // 4096 % 3
        ideals = rebuild_everything(self.nodes)
        tasks = [node.task(self.labels) for node in self.nodes]
        store = Store(self.root / "store")
        store.__dict__["index"] = Memoryless()
        try:
            knowledge = StoreKnowledge(store, self.root / "project", Observed({}, {}, {}))
            if planned:
                plan = make_plan("p", tasks, knowledge, force=frozenset(force))
                self.check_plan(plan, ideals, force)
            watch = Watch(self, ideals, force, knowledge, jobs)
            scheduler = Scheduler(
                store,
                InlineExecutor(store),
                jobs=jobs,
                keep_going=keep_going,
                force=force,
                project=str(self.root / "project"),
                explain=watch.explain,
                emit=watch,
            )
            result = scheduler.run(tasks)
            self.check_result(store, result, ideals, watch, keep_going=keep_going)
            for node in self.nodes:
                if result.outcomes[node.label].trace is not None:
                    self.oracle.remember(node, self.labels, ideals[node.label])
            if result.ok:
                self.check_install(store, tasks, result, ideals)
        finally:
            store.close()
        self.counts.builds += 1

    def check_plan(self, plan: Plan, ideals: dict[str, Ideal], force: set[str]) -> None:
        verdicts = {verdict.task.label: verdict for verdict in plan.verdicts}
        for node in self.nodes:
            verdict, ideal = verdicts[node.label], ideals[node.label]
            known = all(verdicts[self.labels[up]].state in ("cached", "restore") for up, _ in node.inputs)
            needed = node.label in force or not self.oracle.whole(ideal.key)
            assert (verdict.state in ("cached", "restore")) == (known and not needed), verdict
            assert verdict.reasons or verdict.state == "cached", verdict
            for reason in verdict.reasons:
                if verdict.state == "restore":
                    assert isinstance(reason, OutputMissing | OutputCorrupt)
                    file = self.root / "project" / reason.path
                    wanted = ideal.output[reason.path.removeprefix(f"dist/{node.label}/")]
                    assert file.exists() == isinstance(reason, OutputCorrupt)
                    assert not file.exists() or file.read_bytes() != wanted
                elif isinstance(reason, Cascade):
                    root = verdicts[reason.root]
                    assert root.state == "run", verdict
                    assert not any(isinstance(one, Cascade) for one in root.reasons)
                    assert self.depends(node, reason.root)
                    assert len(verdict.reasons) == 1
                else:
                    self.confirm(reason, node, ideal, force, self.moment(ideal))

    def depends(self, node: Node, root: str) -> bool:
        return any(self.labels[up] == root or self.depends(self.nodes[up], root) for up, _ in node.inputs)

    def moment(self, ideal: Ideal) -> Moment:
        return Moment(self.oracle.whole(ideal.key), frozenset(self.oracle.damaged))

    def confirm(self, reason: Reason, node: Node, ideal: Ideal, force: set[str], when: Moment) -> None:
        """Hold a reason that is the task's own against what was true when it was found, and in the last build."""
        name = type(reason).__name__
        self.counts.reasons[name] = self.counts.reasons.get(name, 0) + 1
        before = self.oracle.previous.get(node.label)
        match reason:
            case Forced():
                assert node.label in force
            case NeverBuilt():
                assert before is None
            case ParameterChanged(what, old, new):
                assert before is not None
                assert (before.params[what], node.values[what]) == (old, new)
                assert old != new
            case ToolChanged(what, old, new):
                assert before is not None
                assert (before.tools[what], WORLD.tools[what]) == (old, new)
                assert old != new
            case InputChanged():
                assert before is not None
                assert self.input_changed(reason, node, ideal, before.seen), reason
            case Evicted():
                assert not when.whole
                assert ideal.key in self.oracle.traces or (before is not None and before.key == ideal.key)
            case OutputCorrupt(path, cached=True):
                assert ideal.output.get(path, tree_of(ideal.output)) in when.damaged
            case _:
                raise AssertionError(reason)

    def input_changed(self, reason: InputChanged, node: Node, ideal: Ideal, before: object) -> bool:
        assert isinstance(before, dict)
        for n, (up, how) in enumerate(node.inputs):
            old, new = before.get(f"i{n}"), ideal.seen[f"i{n}"]
            if self.labels[up] != reason.task or old is None:
                continue
            if not reason.file and not reason.field:
                # Named no closer: the old content is gone, or the form of the input changed.
                if old != new or (reason.old, reason.new) != (None, None):
                    return True
            elif reason.field and isinstance(SELECTIONS[how], JsonFields):
                if (reason.field, reason.old, reason.new) in changes(old, new):
                    return True
            elif reason.file:
                pair = [digest_bytes(side[reason.file]) if reason.file in side else None for side in (old, new)]
                if pair == [reason.old, reason.new] and pair[0] != pair[1]:
                    return True
        return False

    def check_result(
        self, store: Store, result: BuildResult, ideals: dict[str, Ideal], watch: Watch, *, keep_going: bool
    ) -> None:
        failed = set(result.labels(Status.FAILED))
        for node in self.nodes:
            label, ideal = node.label, ideals[node.label]
            outcome = result.outcomes[label]
            if outcome.tree is not None:
                found = {file.path: store.cas.get_bytes(file.digest) for file in outcome.tree.files}
                assert found == ideal.output
                assert outcome.action is not None
                again = cached(store, outcome.action)
                assert again is not None and again.tree == outcome.tree
                assert self.oracle.whole(ideal.key)
                if outcome.status is Status.CACHED and any(self.labels[up] in watch.ran for up, _ in node.inputs):
                    self.counts.cut_off += 1
            elif label in failed:
                assert any(ideals[other].key == ideal.key for other in WORLD.failing)
                assert label in watch.reasons
            else:
                below = any(result.outcomes[self.labels[up]].tree is None for up, _ in node.inputs)
                assert below or not keep_going
                assert failed
        self.counts.runs += len(result.labels(Status.RAN))
        self.counts.cached += len(result.labels(Status.CACHED))
        self.counts.failed += len(failed)
        assert set(result.labels(Status.RAN)) == watch.ran

    def check_install(self, store: Store, tasks: list[Task], result: BuildResult, ideals: dict[str, Ideal]) -> None:
        items = []
        for task in tasks:
            tree = result.outcomes[task.label].tree
            assert tree is not None
            items += [Installation(task.label, tree, one) for one in task.installs]
        install(store, self.root / "project", items, known=self.labels)
        self.dist = {
            f"dist/{node.label}/{path}": data
            for node in self.nodes
            if node.installed
            for path, data in ideals[node.label].output.items()
        }
        edited = {path: data for path, data in snapshot(self.root / "project").items() if path not in self.dist}
        # Files that no longer belong are gone, unless the user had edited them.
        assert all(data not in self.oracle.sound or path not in self.dist for path, data in edited.items())
        assert {path: data for path, data in snapshot(self.root / "project").items() if path in self.dist} == self.dist


class Watch:
    """Takes a build's events: whatever starts must have a reason at that moment, and the reason told must be it."""

    def __init__(
        self,
        machine: Machine,
        ideals: dict[str, Ideal],
        force: set[str],
        knowledge: StoreKnowledge,
        jobs: int,
    ) -> None:
        self.machine = machine
        self.jobs = jobs
        self.ideals = ideals
        self.force = force
        self.knowledge = knowledge
        self.ran: set[str] = set()
        self.started: set[str] = set()
        self.reasons: dict[str, tuple[Reason, ...]] = {}
        self.queued: dict[str, Moment] = {}

    def __call__(self, event: events.Event) -> None:
        event.to_json()
        machine, oracle = self.machine, self.machine.oracle
        match event:
            case events.Started(label=label):
                node, ideal = machine.nodes[machine.labels.index(label)], self.ideals[label]
                assert self.jobs > 1 or label in self.force or not oracle.whole(ideal.key), (
                    f"{label} ran without a reason"
                )
                for reason in self.reasons[label]:
                    machine.confirm(reason, node, ideal, self.force, self.queued[label])
                self.started.add(label)
                oracle.launched(node, ideal)
            case events.Finished(label=label, action=action):
                self.ran.add(label)
                oracle.built(self.ideals[label], action)
            case events.CachedTask(label=label, source="process"):
                oracle.launched(machine.nodes[machine.labels.index(label)], self.ideals[label])
            case events.CorruptBlob(digest=digest):
                content: Content = oracle.names[digest]
                assert content in oracle.damaged
                assert content_name(content) == digest == digest_bytes(content_bytes(content))

    def explain(self, task: Task, bound: Bound) -> Explained:
        """As a workspace does."""
        label = task.label
        self.queued[label] = self.machine.moment(self.ideals[label])
        assert label in self.force or not self.queued[label].whole, f"{label} is to run without a reason"
        known = self.knowledge.recall(bound.action.digest)
        self.reasons[label] = (Forced(),) if label in self.force else self.knowledge.reasons(task, bound)
        if label not in self.force and isinstance(known, Built):
            # The scheduler found that something was lost, and a task that runs beside this one has written the same since.
            assert self.jobs > 1
            assert any(self.contents(label) & self.contents(other) for other in self.started - {label})
        elif label not in self.force and not isinstance(known, Lost):
            assert known is None
            assert self.reasons[label]
            self.check_complete(label, self.reasons[label])
        return Explained(time=0.0, label=label, reasons=self.reasons[label])

    def contents(self, label: str) -> set[Content]:
        output = self.ideals[label].output
        return {tree_of(output), *output.values()}

    def check_complete(self, label: str, reasons: tuple[Reason, ...]) -> None:
        """Every parameter and tool that differs from the last build is named."""
        before = self.machine.oracle.previous.get(label)
        if before is None:
            return
        node = self.machine.nodes[self.machine.labels.index(label)]
        params = {reason.name for reason in reasons if isinstance(reason, ParameterChanged)}
        tools = {reason.name for reason in reasons if isinstance(reason, ToolChanged)}
        assert params == {name for name in node.params if node.values[name] != before.params.get(name, MISSING)}
        assert tools == {name for name in node.tools if WORLD.tools[name] != before.tools.get(name, MISSING)}


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    with ram_directory() as root, pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLMBUILD_TASK_MODULES", MODULE)
        patch.setattr(fs, "current", UnsyncedFs())
        yield root


NUMBER = st.integers(0, 2**22 - 1)
STEP = st.tuples(st.lists(NUMBER, max_size=4), st.integers(0, 255))


@pytest.mark.parametrize("part", [0, *(pytest.param(part, marks=pytest.mark.full) for part in range(1, PARTS))])
def test_the_engine_does_what_rebuilding_everything_does(place: Path, part: int) -> None:
    counts = Counts()

    @seed(part)
    @settings(
        max_examples=SEQUENCES // PARTS,
        deadline=None,
        database=None,
        print_blob=True,
        phases=(Phase.explicit, Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(numbers=st.lists(NUMBER, min_size=2, max_size=12), steps=st.lists(STEP, min_size=1, max_size=5))
    def check(numbers: list[int], steps: list[tuple[list[int], int]]) -> None:
        root = place / f"{part}-{counts.sequences}"
        counts.sequences += 1
        machine = Machine(root, [decode_node(number, n) for n, number in enumerate(numbers)], counts)
        try:
            machine.build(0)
            for edits, number in steps:
                for edit in edits:
                    machine.edit(edit)
                machine.build(number)
            # Whatever happened, a last build without failures brings everything to its place.
            WORLD.failing = set()
            machine.build(0)
        finally:
            shutil.rmtree(root, ignore_errors=True)

    check()
    print(counts)
    assert counts.sequences >= SEQUENCES // PARTS
    if SEQUENCES >= 2000:
        kinds = {"NeverBuilt", "ParameterChanged", "ToolChanged", "InputChanged", "Evicted", "OutputCorrupt", "Forced"}
        assert set(counts.reasons) == kinds
        assert min(counts.failed, counts.cut_off, counts.cached) > 100
