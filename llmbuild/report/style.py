"""Colour and width of a terminal.  Nothing is coloured when the output is not a terminal or NO_COLOR is set."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO

_CODES = {"red": "31", "green": "32", "yellow": "33", "cyan": "36", "bold": "1", "dim": "2"}
_NARROWEST, _WIDEST = 40, 1000
STATE_STYLES: Mapping[str, str] = {
    "run": "yellow",
    "maybe": "cyan",
    "restore": "yellow",
    "cached": "dim",
    "blocked": "red",
}


@dataclass(frozen=True, slots=True)
class Style:
    """How to write for one output stream: `width` in columns, and whether colour is wanted."""

    width: int = 80
    color: bool = False

    def paint(self, text: str, name: str) -> str:
        """The text in a named style, or unchanged where colour is off."""
        return f"\x1b[{_CODES[name]}m{text}\x1b[0m" if self.color and name in _CODES else text


def style_for(stream: IO[str]) -> Style:
    """The style of a stream: the terminal's width (COLUMNS first); 80 columns and no colour where it is not one."""
    terminal = stream.isatty()
    width = shutil.get_terminal_size((80, 24)).columns if terminal else _asked_columns()
    color = terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return Style(min(max(_NARROWEST, width), _WIDEST), color)


def _asked_columns() -> int:
    """The width that COLUMNS requests, 80 where it is no number."""
    text = os.environ.get("COLUMNS", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) <= len(str(_WIDEST)) and int(text) else 80


def wrapped(text: str, indent: int, style: Style) -> list[str]:
    """The text in lines of the style's width at an indent, later lines two columns further in; words are never split."""
    import textwrap

    pad = " " * indent
    return textwrap.wrap(
        text,
        style.width,
        initial_indent=pad,
        subsequent_indent=pad + "  ",
        break_long_words=False,
        break_on_hyphens=False,
    )
