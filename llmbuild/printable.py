"""Text from outside as a terminal may show it: control characters become visible escapes.

A server's words, a checkpoint's names, an answer of a model may contain sequences that set a terminal's title, clear it, or
reverse the order of what follows.  Line breaks and tabs stay.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""C0 without tab and line feed, DEL, C1, line separators, what changes the order of text, and halves of surrogate pairs."""


def printable(text: str) -> str:
    r"""The text with `\x1b` for an escape and `\u202e` for a change of order; any stream and terminal can show it."""
    return _UNSEEN.sub(lambda found: _escape(found[0]), text.replace("\r\n", "\n"))


def printable_json(text: str) -> str:
    r"""JSON text in which the same characters stand as `\u009b`, so that it is the same value and safe to show."""
    return _UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _escape(letter: str) -> str:
    number = ord(letter)
    return f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}"


def is_text(text: str) -> bool:
    """Whether a string can be written as UTF-8: names of files that are not come with lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def several(names: Sequence[str], most: int = 5) -> str:
    """`a, b and c`, or the first names and how many others there are: `a, b and 3 more`."""
    if len(names) > most:
        return f"{', '.join(names[:most])} and {len(names) - most} more"
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def either(words: Iterable[str]) -> str:
    """`a, b or c`."""
    *first, last = words
    return f"{', '.join(first)} or {last}" if first else last
