"""The last rows of a terminal, drawn anew in place while lines are printed above them.

Each change is one write, which touches only rows that differ, so that nothing flickers.  Where the terminal became narrower, it
has broken the old rows into more; so many are then drawn over, and none is left behind.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Sequence
from typing import IO

_COLOUR = re.compile(r"\x1b\[\d+m")
_BEGIN, _END = "\x1b[?2026h", "\x1b[?2026l"
"""A terminal that knows synchronized output shows what is between these at once; others pass over them."""


class Region:
    """Rows at the end of what a terminal shows.  `size` gives its columns and lines as they are now.  Safe for threads."""

    def __init__(self, stream: IO[str], size: Callable[[], tuple[int, int]]) -> None:
        self._stream = stream
        self._size = size
        self._rows: list[str] = []
        self._columns = 0
        self._drawing = threading.Lock()

    def draw(self, rows: Sequence[str]) -> None:
        """Show these rows in place of the last ones; each must be less wide than the terminal."""
        with self._drawing:
            columns = self._size()[0]
            if columns != self._columns:
                self._write(self._anew("", rows))
            elif list(rows) != self._rows:
                self._write(self._changed(rows))
            self._rows, self._columns = list(rows), columns

    def print(self, text: str) -> None:
        """Print lines above the rows, which stay."""
        with self._drawing:
            self._write(self._anew(f"{text}\n", self._rows))
            self._columns = self._size()[0]

    def clear(self) -> None:
        """Take the rows away; lines may be printed where they were."""
        with self._drawing:
            if self._rows:
                self._write(self._anew("", ()))
            self._rows = []

    def _anew(self, above: str, rows: Sequence[str]) -> str:
        return f"{self._up()}\x1b[J{above}" + "".join(f"{row}\n" for row in rows)

    def _changed(self, rows: Sequence[str]) -> str:
        text = self._up()
        for number, row in enumerate(rows):
            same = number < len(self._rows) and self._rows[number] == row
            text += "\n" if same else f"\x1b[K{row}\n"
        return text + ("\x1b[J" if len(rows) < len(self._rows) else "")

    def _up(self) -> str:
        """The way from below the rows to the first of them."""
        columns, lines = self._size()
        widths = [len(_COLOUR.sub("", row)) for row in self._rows]
        height = min(sum(max(1, -(-width // columns)) for width in widths), lines - 1)
        return f"\r\x1b[{height}A" if height else "\r"

    def _write(self, text: str) -> None:
        self._stream.write(f"{_BEGIN}{text}{_END}")
        self._stream.flush()
