"""A text as tokens, cut into windows that a model reads one after another, each without what precedes it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from llmbuild.errors import InputError

WINDOW = 512
"""The tokens of a window, unless the model's own context is shorter.  Fixed: figures of other lengths are not comparable."""


@dataclass(frozen=True, slots=True)
class Window:
    """`tokens` that a model reads, of which the first `prefix` are not the text's, and the text's token that follows each of the
    others (`targets`).  `start` is the place of the first target in the text's tokens."""

    tokens: Sequence[int]
    prefix: int
    targets: Sequence[int]
    start: int


def prefix_of(tokenizer: Any) -> list[int]:
    """The special tokens that a tokenizer puts before a text, which models with such tokens have always seen there."""
    encoded = tokenizer.encode("a", add_special_tokens=True)
    found = []
    for number, special in zip(encoded.ids, encoded.special_tokens_mask, strict=True):
        if not special:
            break
        found.append(int(number))
    return found


def read_text(data: bytes, where: str) -> str:
    """The text of a file.  Raises InputError where it is not UTF-8."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            "the text is not UTF-8",
            where=where,
            why=f"byte {error.start} belongs to no character",
            fix="convert it: `iconv -f LATIN1 -t UTF-8 FILE`, with its own encoding",
        ) from error


def windows(tokens: Sequence[int], prefix: Sequence[int], context: int) -> Iterator[Window]:
    """Windows over the tokens of a text.  Every token but the first is a target once."""
    size = max(1, min(WINDOW, context) - len(prefix))
    for start in range(0, len(tokens) - 1, size):
        targets = tokens[start + 1 : start + 1 + size]
        yield Window([*prefix, *tokens[start : start + len(targets)]], len(prefix), targets, start + 1)
