"""The view of a build on a terminal: lines as elsewhere, and below them what runs, drawn anew as it goes on."""

from __future__ import annotations

import io
import sys
import threading
import time
from collections.abc import Callable
from typing import IO

from llmbuild.canonical import Digest
from llmbuild.engine import events
from llmbuild.report.live_rows import rows
from llmbuild.report.region import Region
from llmbuild.report.style import Style, terminal_size
from llmbuild.report.terminal import View

_EVERY_S = 0.125
"""How often progress is drawn at most, and how soon a terminal's new size is followed."""


class LiveView(View):
    """A View with a row for each running task and one for the build.  The rows are there from the first start to the end."""

    def __init__(
        self,
        stream: IO[str],
        style: Style,
        *,
        quiet: bool = False,
        workflow: bool = False,
        log: Callable[[Digest], str] | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(stream, style, quiet=quiet, workflow=workflow, log=log)
        self._now = now
        self._region: Region | None = None
        self._unicode = (getattr(stream, "encoding", None) or "utf-8").lower().startswith("utf")
        self._stopped = threading.Event()
        self._events = threading.RLock()
        self._others: dict[str, _Above] = {}

    def __call__(self, event: events.Event) -> None:
        with self._events:
            super().__call__(event)
            if isinstance(event, events.Started) and self._region is None:
                self._begin()
        if not isinstance(event, events.TaskProgress):
            self.refresh()

    def follow(self, event: events.Started) -> None:
        """The rows show it."""

    def refresh(self) -> None:
        """Draw the rows as they are now."""
        with self._events:
            if self._region is None:
                return
            columns, lines = terminal_size(self._stream)
            self.style = Style(columns, self.style.color)
            self._region.draw(rows(self.overview, self._now(), self.style, lines, unicode=self._unicode))

    def close(self) -> None:
        super().close()
        self._stopped.set()
        with self._events:
            region, self._region = self._region, None
            if region is None:
                return
            for name, above in self._others.items():
                above.finish()
                setattr(sys, name, above.stream)
            self._others.clear()
            region.clear()

    def _begin(self) -> None:
        self._region = Region(self._stream, lambda: terminal_size(self._stream))
        self._stopped.clear()
        # Warnings and notes of other code are printed above the rows.
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            if stream is not None and stream.isatty():
                self._others[name] = above = _Above(stream, self._region.print)
                setattr(sys, name, above)
        threading.Thread(target=self._tick, name="live view", daemon=True).start()

    def _tick(self) -> None:
        while not self._stopped.wait(_EVERY_S):
            try:
                self.refresh()
            except (OSError, ValueError):
                # The build itself reports a stream that is gone.
                return

    def _print(self, text: str) -> None:
        if self._region is None:
            super()._print(text)
        else:
            self._region.print(text)


class _Above(io.TextIOBase):
    """Stands in for a standard stream on a terminal while rows are shown: its lines go above them."""

    def __init__(self, stream: IO[str], say: Callable[[str], None]) -> None:
        self.stream = stream
        self._say = say
        self._text = ""

    def write(self, text: str) -> int:
        *lines, self._text = (self._text + text).split("\n")
        if lines:
            self._say("\n".join(lines))
        return len(text)

    def finish(self) -> None:
        """Print what no line end followed."""
        if self._text:
            self._say(self._text)
            self._text = ""

    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        return self.stream.fileno()
