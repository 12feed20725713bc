"""What to do about a damaged file: the advice of those who read it, in the words that fit where it comes from."""

from __future__ import annotations

import re

_AGAIN = re.compile(r"fetch the (file|checkpoint) again")
_WHOLE = r"name another source: the \1 is damaged where this one has it"
_EITHER = r"get the \1 again from where it is from, or name another source, and build again"
_COPIED = r"get the \1 again from where you have it from"


def fitting(fix: str | None, *, remote: bool | None) -> str | None:
    """The advice to a user whose source is fetched from elsewhere, or lies on this machine; None where that is not known."""
    return None if fix is None else _AGAIN.sub(_EITHER if remote is None else _WHOLE if remote else _COPIED, fix)
