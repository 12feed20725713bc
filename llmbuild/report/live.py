"""The view of a build on a terminal: lines as elsewhere, and below them what runs, drawn anew by rich as it goes on."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import IO, TYPE_CHECKING

from llmbuild.canonical import Digest
from llmbuild.engine import events
from llmbuild.report.live_rows import rows
from llmbuild.report.style import Style, style_for
from llmbuild.report.terminal import View

if TYPE_CHECKING:
    from rich.console import ConsoleOptions, RenderableType
    from rich.live import Live

_A_SECOND = 8
"""How often the rows are drawn."""


class LiveView(View):
    """A View with a row for each running task and one for the build, from the first start to the end.

    The first start imports rich.
    """

    def __init__(
        self,
        stream: IO[str],
        style: Style,
        *,
        log: Callable[[Digest], str] | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(stream, style, log=log)
        self._now = now
        self._live: Live | None = None

    def __call__(self, event: events.Event) -> None:
        # The terminal may have another width by now.
        self.style = Style(style_for(self._stream).width, self.style.color)
        super().__call__(event)
        if self._live is None and isinstance(event, events.Started):
            self._live = show(self._stream, self.style, lambda options: rows(self.overview, self._now(), options))
        elif self._live is not None and not isinstance(event, events.TaskProgress):
            self._live.refresh()

    def follow(self, event: events.Started) -> None:
        """The rows show it."""

    def close(self) -> None:
        super().close()
        live, self._live = self._live, None
        if live is not None:
            hide(live)

    def _print(self, text: str) -> None:
        if self._live is None:
            super()._print(text)
        else:
            from rich.text import Text

            self._live.console.print(Text.from_ansi(text), soft_wrap=True)


def show(stream: IO[str], style: Style, made: Callable[[ConsoleOptions], RenderableType]) -> Live:
    """Draw what `made` returns as the last rows of a terminal, several times a second, until `hide`."""
    from rich.console import Console
    from rich.live import Live

    console = Console(
        file=stream, color_system="auto" if style.color else None, highlight=False, markup=False, emoji=False
    )
    live = Live(
        console=console,
        get_renderable=lambda: made(console.options),
        transient=True,
        refresh_per_second=_A_SECOND,
        # Warnings and notes of other code are printed above the rows, where they would be on the terminal.
        redirect_stdout=_on_terminal(sys.stdout),
        redirect_stderr=_on_terminal(sys.stderr),
    )
    live.start(refresh=True)
    return live


def hide(live: Live) -> None:
    """Take the rows away; lines may be printed where they were."""
    for stream in filter(_on_terminal, (sys.stdout, sys.stderr)):
        # What no line end followed is printed too.
        stream.flush()
    live.stop()


def _on_terminal(stream: IO[str] | None) -> bool:
    """Whether a standard stream, None where the process has none, is shown to a person."""
    return stream is not None and stream.isatty()
