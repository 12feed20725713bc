"""Which tasks start when: the predicted schedule is that of the real scheduler, for the same tasks, jobs and memory."""

from __future__ import annotations

import queue
import random
import threading
from pathlib import Path

import pytest

from llmbuild.canonical import Digest
from llmbuild.engine.executor import TaskFailure
from llmbuild.engine.kind import Progress
from llmbuild.engine.lookup import Cached
from llmbuild.engine.pending import turns
from llmbuild.engine.predict import Estimate
from llmbuild.engine.runner import Done, Runner
from llmbuild.engine.scheduler import Scheduler
from llmbuild.engine.store import Store
from llmbuild.engine.task import Task
from llmbuild.executors.inline import InlineExecutor
from llmbuild.plan.estimates import TaskEstimate, simulate
from tests.helpers.engine_build import Recorder, join_task, write_task


class Clock:
    """Time that passes only while every running task waits for its end; then it is that of the first one to end."""

    def __init__(self, seconds: dict[str, float]) -> None:
        self.now = 0.0
        self.starts: dict[str, float] = {}
        self.launched = 0
        self._seconds = seconds
        self._ends: list[tuple[float, int, threading.Event]] = []
        self._order = list(seconds)
        self._changed = threading.Condition()

    def wait(self, label: str) -> None:
        """A task runs: until its time has passed."""
        ended = threading.Event()
        with self._changed:
            self.starts[label] = self.now
            self._ends.append((self.now + self._seconds[label], self._order.index(label), ended))
            self._changed.notify_all()
        ended.wait(60)

    def advance(self) -> None:
        """Nothing more can start: let the first of the running tasks end."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self._ends) == self.launched, 60)
            first = min(self._ends, key=lambda end: end[:2])
            self._ends.remove(first)
            self.launched -= 1
            self.now = first[0]
        first[2].set()


class Messages(queue.SimpleQueue):  # type: ignore[type-arg]
    """The scheduler asks for a message that is not there when it has started all that it may."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._awaited = False

    def get(self, block: bool = True, timeout: float | None = None) -> object:
        if not self._awaited and self.empty():
            self._clock.advance()
            self._awaited = True
        message = super().get(block, 60)
        if isinstance(message, Done):
            self._awaited = False
        return message


class Timed:
    """An executor whose tasks take the time that they are said to."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store, self._inline, self._clock = store, InlineExecutor(store), clock

    def run(self, action: Digest, progress: Progress) -> Cached | TaskFailure:
        self._clock.wait(self._store.get_action(action).label)
        return self._inline.run(action, progress)

    def expect(self, kind: str, count: int) -> None:
        self._clock.launched += 1

    def terminate(self) -> None:
        self._inline.terminate()


def graph(random: random.Random) -> list[Task]:
    tasks: list[Task] = []
    for number in range(12):
        needs = random.sample([task.label for task in tasks], min(len(tasks), random.choice((0, 0, 1, 2))))
        label = f"t{number}"
        tasks.append(join_task(label, label, *needs) if needs else write_task(label, {"joined": label}))
    return tasks


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("memory", [None, 250, 90])
def test_the_order_is_that_of_the_scheduler(
    store: Store, monkeypatch: pytest.MonkeyPatch, seed: int, memory: int | None
) -> None:
    chance = random.Random(seed)
    tasks = graph(chance)
    # No two sums of them are equal, so that no two tasks end at the same time.
    seconds = {task.label: 2.0**number + chance.random() for number, task in enumerate(tasks)}
    seconds = dict(zip(seconds, chance.sample(list(seconds.values()), len(seconds)), strict=True))
    peaks = {task.label: chance.choice((20, 60, 100)) for task in tasks}
    known = {task.label: TaskEstimate(seconds[task.label], peaks[task.label], 0, 0, 1) for task in tasks}
    predicted = simulate(tasks, known, 3, memory)

    clock = Clock(seconds)
    messages = Messages(clock)
    executor = Timed(store, clock)
    scheduler = Scheduler(
        store,
        executor,
        jobs=3,
        predict=lambda task, _size: Estimate(seconds[task.label], peaks[task.label], 0, 1),
        memory=memory,
        emit=Recorder(),
    )
    monkeypatch.setattr(scheduler, "_messages", messages)
    monkeypatch.setattr(scheduler, "_runner", Runner(store, executor, messages.put))
    assert scheduler.run(tasks).ok
    assert clock.starts == predicted.starts
    assert clock.now == predicted.wall_s


def test_a_budget_makes_a_difference(tmp_path: Path) -> None:
    tasks = graph(random.Random(1))
    known = {task.label: TaskEstimate(1, 100, 0, 0, 1) for task in tasks}
    assert simulate(tasks, known, 3).wall_s < simulate(tasks, known, 3, 150).wall_s == 12


def test_equally_urgent_tasks_of_several_models_take_turns() -> None:
    tasks = [
        Task(kind, f"{kind}[{model}, {platform}]", 1, {}, {}, {}, model=model)
        for kind in ("config", "lower")
        for model in ("one", "two")
        for platform in ("a", "b")
    ]
    order = turns(tasks)
    assert [label for label in sorted(order, key=order.__getitem__) if label.startswith("lower")] == [
        "lower[one, a]",
        "lower[two, a]",
        "lower[one, b]",
        "lower[two, b]",
    ]
    known = {task.label: TaskEstimate(1, 1, 0, 0, 0) for task in tasks}
    starts = simulate(tasks[4:], known, 2).starts
    assert starts["lower[one, a]"] == starts["lower[two, a]"] == 0 and starts["lower[one, b]"] == 1
