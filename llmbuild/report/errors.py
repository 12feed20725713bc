"""Errors as a person reads them: what and where, why, and what to do; and the report of a bug."""

from __future__ import annotations

import sys

from llmbuild.errors import LlmbuildError, MultiError
from llmbuild.printable import printable
from llmbuild.report.style import Style, style_for
from llmbuild.report.wrapping import wrap

MOST_LINES = 25
"""The lines of one error; a compiler's words or a list may be longer."""
_LEAST_LINES = 5
"""The lines that a reason and a fix have at least, however long the rest is."""
_LONG = 80
"""A reason or a fix of so many characters is shown once a command."""


def render_error(error: LlmbuildError, style: Style | None = None) -> str:
    """The message that goes to the standard error stream; several errors follow one another with their number last."""
    style = style or style_for(sys.stderr)
    if isinstance(error, MultiError):
        said: set[str] = set()
        many = [render_error(without_repeats(each, said), style) for each in error.errors]
        return "\n".join(many + ([f"{len(many)} errors"] if len(many) > 1 else []))
    place = f"{error.where}: " if error.where else ""
    lines = _wrap(f"error: {place}{error.what}", "  ", style.width, _head(error, style.width))
    lines[0] = lines[0].replace("error:", style.paint("error:", "red"), 1)
    why = _wrap(f"  why: {error.why}", "       ", style.width) if error.why else []
    fix = _wrap(f"  fix: {error.fix}", "       ", style.width) if error.fix else []
    fix = _cut(fix, max(_LEAST_LINES, MOST_LINES - len(lines) - len(why)))
    lines = _cut(lines, MOST_LINES - len(fix) - min(len(why), _LEAST_LINES))
    return "\n".join([*lines, *_cut(why, MOST_LINES - len(fix) - len(lines)), *fix])


def _cut(lines: list[str], most: int) -> list[str]:
    """The lines, or the first of them and how many more there are."""
    return lines if len(lines) <= most else [*lines[: most - 1], f"       … and {len(lines) - most + 1} more lines"]


def without_repeats(error: LlmbuildError, said: set[str]) -> LlmbuildError:
    """The error that refers to a long reason or fix in `said`, such as a list of known names; other ones are added to it."""

    def fresh(text: str | None) -> str | None:
        if text is None or len(text) < _LONG:
            return text
        known = text in said
        said.add(text)
        return "as above" if known else text

    shown = LlmbuildError(error.what, where=error.where, why=fresh(error.why), fix=fresh(error.fix))
    shown.exit_code = error.exit_code
    return shown


def render_internal_error(error: BaseException, log: str | None, style: Style | None = None) -> str:
    """The message for an unexpected exception: one line, and where the traceback is (None: above it)."""
    style = style or style_for(sys.stderr)
    first = printable(str(error).partition("\n")[0])
    summary = f"{type(error).__name__}: {first}" if first else type(error).__name__
    place = "above" if log is None else f"in {log}"
    return f"{style.paint('internal error:', 'red')} {summary} (a bug in llmbuild; the traceback is {place})"


def _head(error: LlmbuildError, width: int) -> str:
    """What begins a message and stays on one line: the place, or where that is longer than a line, its first word."""
    head = f"error: {error.where or error.what}"
    return head if error.where and len(head) < width else " ".join(head.split(maxsplit=2)[:2])


def _wrap(text: str, indent: str, width: int, head: str = "") -> list[str]:
    """The text in lines of at most `width` columns; its own line breaks stay, and its `head` is not broken."""
    first, *others = text.split("\n")
    lines = wrap(first, width, later=indent, whole=head)
    for line in others:
        lines += wrap(line, width, indent, indent) if line.strip() else [""]
    return lines
