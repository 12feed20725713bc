"""Text in lines of a width.  A path and a task's label are never broken in the middle, unless they are longer than a line."""

from __future__ import annotations

import re

_WHOLE = re.compile(r"\w+\[[^\[\]\n]*\]|(?<!\w)'(?!\s)[^'\n]*/[^'\n]*(?<!\s)'(?!\w)")
"""What stays on one line although it may have blanks: `lower[smollm2, q4f32_1, web]` and '/a directory/with blanks'.
A quotation mark that ends one name, or an apostrophe, begins none."""
_KEPT = "\ue000"
"""In place of a blank that no line may be broken at: a character that no text has, since Unicode gives it no meaning."""


def wrap(text: str, width: int, first: str = "", later: str = "", *, whole: str = "") -> list[str]:
    """The lines of a text, at most `width` columns wide where no word is longer, the first one after `first` and the others after
    `later`.  `whole` is a part of the text that stays on one line however long it is.  An empty text is one empty line."""
    import textwrap

    room = width - max(len(first), len(later))

    def kept(found: re.Match[str]) -> str:
        return found[0].replace(" ", _KEPT) if len(found[0]) <= room else found[0]

    if whole:
        text = text.replace(whole, whole.replace(" ", _KEPT), 1)
    lines = textwrap.wrap(
        _WHOLE.sub(kept, text),
        width,
        initial_indent=first,
        subsequent_indent=later,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [line.replace(_KEPT, " ") for line in lines] or [first.rstrip()]
