"""How much was sent to a destination: on a terminal a row that is drawn anew, as a build has; elsewhere a line a minute."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import IO, TYPE_CHECKING

from llmbuild.report.heartbeat import Heartbeat
from llmbuild.report.live import hide, show
from llmbuild.report.live_rows import rows
from llmbuild.report.overview import Overview
from llmbuild.report.rate import Progress
from llmbuild.report.style import can_redraw, style_for
from llmbuild.report.units import amount

if TYPE_CHECKING:
    from rich.live import Live


class SendingView:
    """Shows how much was sent to a destination on a stream, until that is closed."""

    def __init__(self, stream: IO[str], *, now: Callable[[], float] = time.time) -> None:
        self._stream, self._now = stream, now
        self._overview = Overview()
        self._terminal = can_redraw(stream)
        self._live: Live | None = None
        self._heartbeat = Heartbeat(lambda text: print(f"still  {text}", file=stream, flush=True), now=now)

    def begin(self, name: str, total: int) -> None:
        """Show a destination, to which as many bytes have to be sent at most."""
        now = self._now()
        self._overview.running[name] = Progress(now)
        self.progress(name, 0, total)
        if self._terminal:
            style = style_for(self._stream)
            self._live = show(self._stream, style, lambda options: rows(self._overview, self._now(), options))
        else:
            self._heartbeat.started(name, now)

    def progress(self, name: str, done: int, total: int) -> None:
        with self._overview.lock:
            if name in self._overview.running:
                self._overview.running[name].advance(self._now(), done, total, "bytes")
        self._heartbeat.progress(name, amount(done, total, "bytes"))

    def end(self, name: str) -> None:
        """Show it no longer; other lines may follow."""
        live, self._live = self._live, None
        if live is not None:
            hide(live)
        with self._overview.lock:
            self._overview.running.pop(name, None)
        self._heartbeat.ended(name)

    def close(self) -> None:
        for name in tuple(self._overview.running):
            self.end(name)
        self._heartbeat.stop()
