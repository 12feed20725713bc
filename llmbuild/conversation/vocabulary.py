"""The tokens of a tokenizer by number, read from tokenizer.json without loading it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any


@dataclass(frozen=True, slots=True)
class AddedToken:
    """A token that is found in text as a whole.  `number` is the one that it gets, `written` the one that the file gives it.

    They differ where the file leaves a gap: the tokenizers library numbers the added tokens that are no pieces from the count of
    the pieces on.
    """

    number: int
    written: int
    special: bool


@dataclass(frozen=True)
class Vocabulary:
    """`pieces` are what text is cut into; an added token may be one of them."""

    pieces: Mapping[str, int]
    added: Mapping[str, AddedToken]

    def number(self, text: str) -> int | None:
        """The number of a token, or None where there is no such token."""
        added = self.added.get(text)
        return self.pieces.get(text) if added is None else added.number

    def special(self, text: str) -> int | None:
        """The number of a special token: it never appears in an answer's text."""
        added = self.added.get(text)
        return None if added is None or not added.special else added.number

    def text(self, number: int) -> str | None:
        """The token of a number, or None where there is none."""
        return self._texts.get(number)

    @property
    def end(self) -> int:
        """One more than the largest number: a file with gaps has fewer tokens than that."""
        numbers = [*self.pieces.values(), *(token.number for token in self.added.values())]
        return max(numbers, default=-1) + 1

    @property
    def following(self) -> int:
        """The number that the tokenizers library gives the next token which is added."""
        return len(self.pieces) + len(self.added.keys() - self.pieces.keys())

    @cached_property
    def _texts(self) -> Mapping[int, str]:
        texts = {number: text for text, number in self.pieces.items()}
        return texts | {token.number: text for text, token in self.added.items()}


def read_vocabulary(tokenizer: Mapping[str, Any] | None) -> Vocabulary:
    """The tokens of tokenizer.json, or none without it.  What is no token there is left to the library that loads it."""
    if tokenizer is None:
        return Vocabulary({}, {})
    model = tokenizer.get("model")
    listed = model.get("vocab") if isinstance(model, dict) else None
    pieces: dict[str, int] = {}
    if isinstance(listed, dict):
        pieces = {text: number for text, number in listed.items() if type(number) is int}
    elif isinstance(listed, list):
        # Unigram: pairs of a piece and its score, in the order of their numbers.
        pieces = {
            item[0]: at for at, item in enumerate(listed) if isinstance(item, list) and item and _is_text(item[0])
        }
    added: dict[str, AddedToken] = {}
    entries = tokenizer.get("added_tokens")
    following = len(pieces)
    for entry in entries if isinstance(entries, list) else ():
        if not isinstance(entry, dict) or not _is_text(entry.get("content")):
            continue
        text, written = entry["content"], entry.get("id")
        number = pieces.get(text, following)
        following += text not in pieces
        added[text] = AddedToken(number, written if type(written) is int else number, entry.get("special") is True)
    return Vocabulary(pieces, added)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)
