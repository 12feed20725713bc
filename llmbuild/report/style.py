"""Colour and width of a terminal.  Nothing is coloured when the output is not a terminal or NO_COLOR is set."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO

from llmbuild.report.wrapping import wrap

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
    width = _asked("COLUMNS") or (_columns(stream) if stream.isatty() else 0) or 80
    color = can_redraw(stream) and not os.environ.get("NO_COLOR")
    return Style(min(max(_NARROWEST, width), _WIDEST), color)


def can_redraw(stream: IO[str]) -> bool:
    """Whether a stream is a terminal that follows control sequences: one whose TERM is dumb has no colour and moves no cursor."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def _columns(terminal: IO[str]) -> int:
    """The width that a terminal has now, 0 where nothing says it."""
    try:
        return os.get_terminal_size(terminal.fileno()).columns
    except (OSError, ValueError):
        return 0


def _asked(variable: str) -> int:
    """The number that an environment variable requests, 0 where it is no number."""
    text = os.environ.get(variable, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) <= len(str(_WIDEST)) else 0


def wrapped(text: str, indent: int, style: Style) -> list[str]:
    """The text in lines of the style's width at an indent, later lines two columns further in."""
    pad = " " * indent
    return wrap(text, style.width, pad, pad + "  ") if text else []
