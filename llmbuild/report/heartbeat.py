"""A line a minute about tasks that take long, where no live lines show that they go on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from llmbuild.report.units import seconds

EVERY = 60.0
"""Seconds between two lines, and how long a task has to run before it is in one."""


class Heartbeat:
    """Reports which tasks still run and since when.

    The reporting thread starts with the first task.  `now` returns seconds since the epoch, and `wait` waits as many seconds
    as it is given and returns whether the build ended meanwhile.
    """

    def __init__(
        self,
        say: Callable[[str], None],
        *,
        now: Callable[[], float] = time.time,
        wait: Callable[[float], bool] | None = None,
    ) -> None:
        self._say = say
        self._now = now
        self._stop = threading.Event()
        self._wait = wait or self._stop.wait
        self._since: dict[str, float] = {}
        self._amounts: dict[str, str] = {}
        self._thread: threading.Thread | None = None

    def started(self, label: str, since: float) -> None:
        """Record that a task runs since then."""
        self._since[label] = since
        if self._thread is None:
            self._thread = threading.Thread(target=self.beat, name="heartbeat", daemon=True)
            self._thread.start()

    def progress(self, label: str, amount: str) -> None:
        """Record how far a task is."""
        self._amounts[label] = amount

    def ended(self, label: str) -> None:
        """Record that a task ended, failed or not."""
        self._since.pop(label, None)
        self._amounts.pop(label, None)

    def stop(self) -> None:
        """Stop reporting."""
        self._stop.set()

    def beat(self) -> None:
        """Report what runs, once a minute until the end."""
        while not self._wait(EVERY):
            line = self.line()
            if not line:
                continue
            try:
                self._say(line)
            except (OSError, ValueError):
                # The build itself reports a stream that is gone.
                return

    def line(self) -> str:
        """The tasks that have run for a minute or more; empty where there are none."""
        now = self._now()
        # The build's own thread adds and removes tasks meanwhile.
        long = [(label, since) for label, since in tuple(self._since.items()) if now - since >= EVERY]
        return "; ".join(f"{label} for {seconds(now - since)} ({self._details(label, since)})" for label, since in long)

    def _details(self, label: str, since: float) -> str:
        begun = f"since {time.strftime('%H:%M:%S', time.gmtime(since))} UTC"
        amount = self._amounts.get(label)
        return f"{begun}, {amount}" if amount else begun
