"""Where a build stands: how many of its tasks have ended, what runs, and how long the rest takes, from its events alone."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

from llmbuild.engine import events
from llmbuild.engine.labels import split_label
from llmbuild.report.rate import Progress


class Overview:
    """The state of a build after some events.  `running` has the tasks that run, in the order of their starts.

    Who reads it in another thread than the one that has the events holds `lock`.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.began = 0.0
        self.total = 0
        self.failed = 0
        self.running: dict[str, Progress] = {}
        self._ended: set[str] = set()
        self._tasks: tuple[str, ...] = ()
        self._needs: Sequence[Sequence[int]] = ()
        self._jobs = 1
        self._seconds: Mapping[str, float | None] = {}
        self._took: dict[str, list[float]] = {}

    def take(self, event: events.Event) -> None:
        """Go on to the state after this event."""
        with self.lock:
            self._take(event)

    def _take(self, event: events.Event) -> None:
        match event:
            case events.PlanMade():
                self.began, self.total, self._tasks, self._jobs = event.time, len(event.tasks), event.tasks, event.jobs
                self._needs = event.needs or ((),) * self.total
            case events.Predicted():
                self._seconds = dict(zip(self._tasks, event.seconds, strict=False))
            case events.Queued():
                # A task whose result vanished runs again.
                self._ended.discard(event.label)
            case events.Started():
                self.running[event.label] = Progress(event.time)
            case events.TaskProgress() if event.label in self.running:
                self.running[event.label].advance(event.time, event.done, event.total, event.unit)
            case events.Finished() | events.CachedTask() | events.Failed():
                progress = self.running.pop(event.label, None)
                if isinstance(event, events.Finished) and progress is not None:
                    self._took.setdefault(split_label(event.label)[0], []).append(event.time - progress.since)
                self._ended.add(event.label)
                self.failed += isinstance(event, events.Failed)

    @property
    def ended(self) -> int:
        """How many tasks have ended, those with a result in the cache included."""
        return len(self._ended)

    @property
    def count(self) -> str:
        """`[3/17]`, the first number as wide as the second; empty where the number of tasks is unknown."""
        return f"[{self.ended:>{len(str(self.total))}}/{self.total}]" if self.total else ""

    def left_of(self, label: str, now: float) -> float | None:
        """The seconds that a running task still takes: by its progress, else by what is expected; None where neither says it."""
        progress = self.running[label]
        left = progress.left(now)
        known = self._expected(label)
        return known - (now - progress.since) if left is None and known is not None else left

    def _expected(self, label: str) -> float | None:
        """The seconds that a task takes: by earlier runs, else as the middle one of its kind in this build; None where there is
        none."""
        known = self._seconds.get(label)
        took = sorted(self._took.get(split_label(label)[0], ()))
        return took[len(took) // 2] if known is None and took else known

    def left(self, now: float) -> float | None:
        """The seconds that the build still takes if all its tasks run: the longest chain of tasks that wait for each other,
        or all their work on all jobs, whichever is longer.  None unless something says it of every task."""
        after = [0.0] * self.total
        longest = work = 0.0
        for position in reversed(range(self.total)):
            label = self._tasks[position]
            own: float | None = 0.0
            if label in self.running:
                own = self.left_of(label, now)
            elif label not in self._ended:
                own = self._expected(label)
            if own is None:
                return None
            chain = max(0.0, own) + after[position]
            for need in self._needs[position]:
                after[need] = max(after[need], chain)
            longest, work = max(longest, chain), work + max(0.0, own)
        return max(longest, work / self._jobs)
