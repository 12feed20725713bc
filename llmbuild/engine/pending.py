"""The tasks that have to run and wait for a place: the most urgent first, within a budget of memory.

`Waiting` is the order alone, which a build and the prediction of one share.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from llmbuild.engine.build_state import Build, Node, input_size
from llmbuild.engine.predict import Estimate, remaining_path
from llmbuild.engine.task import Task

_LOOK_AHEAD = 64
"""How many tasks that do not fit into the memory are passed over in search of one that does."""

Predict = Callable[[Task, int | None], Estimate]
"""Estimates a task, given the bytes of its inputs or None."""


def turns(tasks: Sequence[Task]) -> dict[str, int]:
    """Whose turn it is among equally urgent tasks, by label: each model's in turn, and otherwise the first of the plan.

    What a task makes on the way serves the next one of its model, and comes too late for one that runs at the same time.
    """
    before: Counter[tuple[str, str]] = Counter()
    ranks: list[tuple[int, int, str]] = []
    for position, task in enumerate(tasks):
        ranks.append((before[task.kind, task.model], position, task.label))
        before[task.kind, task.model] += 1
    return {label: turn for turn, (_, _, label) in enumerate(sorted(ranks))}


class Waiting:
    """Labels in the order in which they may start: the most urgent first, of equally urgent ones the first in `turns`."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, str]] = []

    def add(self, label: str, urgency: float, order: int) -> None:
        heapq.heappush(self._heap, (-urgency, order, label))

    def take(self, fits: Callable[[str], bool]) -> str | None:
        """The first label that fits; a few dozen that do not are passed over, and stay.  None when there is none."""
        passed: list[tuple[float, int, str]] = []
        found: str | None = None
        while self._heap and found is None and len(passed) < _LOOK_AHEAD:
            item = heapq.heappop(self._heap)
            if fits(item[2]):
                found = item[2]
            else:
                passed.append(item)
        for item in passed:
            heapq.heappush(self._heap, item)
        return found


class Pending:
    """The queue of one build.

    `priority` gives labels an urgency (larger first); without it, `predict` does: the tasks on the longest remaining path go
    first.  With `predict` and `memory` (bytes) a task whose predicted peak does not fit beside the running ones waits; alone,
    every task may run.  `held` is called for a task that is held back so, the first time, with its predicted peak and what the
    running ones take.  Nothing is predicted before the first task has to run; `predicted` is called then, with the estimates of
    all tasks in plan order.
    """

    def __init__(
        self,
        build: Build,
        *,
        priority: Mapping[str, float] | None,
        predict: Predict | None,
        memory: int | None,
        held: Callable[[Node, int, int], None],
        predicted: Callable[[Sequence[Estimate]], None] = lambda _estimates: None,
    ) -> None:
        self.waiting: Counter[str] = Counter()
        """How many tasks of each kind are in the queue."""
        self._build = build
        self._priority = priority
        self._predict = predict
        self._memory = memory
        self._held = held
        self._predicted = predicted
        self._queue = Waiting()
        self._turns: Mapping[str, int] = {}

    def add(self, node: Node) -> None:
        if not self._turns:
            self._turns = turns([one.task for one in self._build.nodes.values()])
        if self._priority is None:
            self._priority = {}
            if self._predict is not None:
                tasks = [one.task for one in self._build.nodes.values()]
                estimates = [self._predict(task, None) for task in tasks]
                seconds = {task.label: one.wall_s for task, one in zip(tasks, estimates, strict=True)}
                self._priority = remaining_path(tasks, seconds)
                self._predicted(estimates)
        self.waiting[node.task.kind] += 1
        self._queue.add(node.task.label, self._priority.get(node.task.label, 0.0), self._turns[node.task.label])

    def take(self) -> Node | None:
        """The most urgent task whose memory fits beside the running ones; None when there is none."""
        label = self._queue.take(lambda label: self._fits(self._build.nodes[label]))
        if label is None:
            return None
        node = self._build.nodes[label]
        self.waiting[node.task.kind] -= 1
        return node

    def _fits(self, node: Node) -> bool:
        if self._predict is None or self._memory is None:
            return True
        build = self._build
        if node.peak is None:
            node.peak = self._predict(node.task, input_size(build.trees, node.task)).peak_rss
        if not build.running or node.digest in build.finished or node.digest in build.running:
            return True
        taken = sum(build.memory.values())
        if taken + node.peak <= self._memory:
            return True
        if not node.told:
            node.told = True
            self._held(node, node.peak, taken)
        return False
