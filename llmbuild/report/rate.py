"""How fast a task goes on, and how long it still takes, from its progress."""

from __future__ import annotations

from collections import deque

from llmbuild.report.units import amount, seconds, size

_WINDOW_S = 10.0
"""The rate is that of the last seconds: a network's changes within a download."""
_LEAST_S = 1.0
"""After so many seconds there is a rate."""


class Progress:
    """The progress of one task: units done of `total` (0 where that is unknown), and the moments at which they were."""

    def __init__(self, since: float) -> None:
        self.since = since
        self.done = self.total = 0
        self.unit = ""
        self._moments: deque[tuple[float, int]] = deque([(since, 0)])

    def advance(self, now: float, done: int, total: int, unit: str) -> None:
        """Take a report of progress; one that goes back, or has other units, begins anew."""
        if done < self.done or unit != self.unit != "":
            self._moments.clear()
        self.done, self.total, self.unit = done, total, unit
        self._moments.append((now, done))
        while len(self._moments) > 2 and self._moments[1][0] <= now - _WINDOW_S:
            self._moments.popleft()

    @property
    def share(self) -> float | None:
        """The part that is done, 0 to 1; None where the total is unknown."""
        return min(1.0, self.done / self.total) if self.total > 0 else None

    def rate(self, now: float) -> float:
        """Units a second, 0 while there is none."""
        then, done = self._moments[0]
        span = now - then
        return (self.done - done) / span if span >= _LEAST_S else 0.0

    def left(self, now: float) -> float | None:
        """The seconds until all units are done at this rate, None where that is unknown."""
        rate = self.rate(now)
        return max(0.0, self.total - self.done) / rate if self.total > 0 and rate > 0 else None


def amount_text(progress: Progress) -> str:
    """`52.1 MB of 105.5 MB`; empty where nothing was reported."""
    return amount(progress.done, progress.total, progress.unit) if progress.unit else ""


def rate_text(progress: Progress, now: float) -> str:
    """`12.3 MB/s` of bytes; empty for other units."""
    rate = progress.rate(now) if progress.unit == "bytes" else 0.0
    return f"{size(rate)}/s" if rate else ""


def left_text(left: float | None) -> str:
    """`12 s left`, `2 min 5 s left`; empty where it is unknown, and where it is less than a second."""
    if left is None or left < 1:
        return ""
    return f"{left:.0f} s left" if left < 59.5 else f"{seconds(max(60.0, left))} left"


def clock(elapsed: float) -> str:
    """`0:07`, `12:03`, `1:02:03`."""
    minutes, rest = divmod(int(max(0.0, elapsed)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
