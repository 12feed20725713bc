"""Turn tokens into text as they come, without showing half a character or a part of a stop string."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class TextStream:
    """Text of one answer.  `put` returns what may be shown now; `stopped` is true once a stop string was met."""

    def __init__(self, tokenizer: Any, stops: Sequence[str] = ()) -> None:
        self._tokenizer = tokenizer
        self._stops = [stop for stop in stops if stop]
        self._tokens: list[int] = []
        self._shown = ""
        self.stopped = False

    @property
    def text(self) -> str:
        """What has been shown so far."""
        return self._shown

    def put(self, token: int) -> str:
        self._tokens.append(token)
        return self._advance(final=False)

    def finish(self) -> str:
        """The rest, once no more tokens come."""
        return "" if self.stopped else self._advance(final=True)

    def _advance(self, *, final: bool) -> str:
        # The whole answer is decoded each time: a token's text depends on its neighbours (spaces, split characters).
        text: str = self._tokenizer.decode(self._tokens, skip_special_tokens=True)
        for stop in self._stops:
            position = text.find(stop)
            if position >= 0:
                text = text[:position]
                self.stopped = True
        if not final and not self.stopped:
            text = text[: len(text) - self._held_back(text)]
        if not text.startswith(self._shown):
            return ""
        fresh = text[len(self._shown) :]
        self._shown = text
        return fresh

    def _held_back(self, text: str) -> int:
        """How many characters at the end could still change: an unfinished character, or the start of a stop string."""
        if text.endswith("\ufffd"):
            return len(text) - len(text.rstrip("\ufffd"))
        longest = 0
        for stop in self._stops:
            for size in range(1, min(len(stop), len(text) + 1)):
                if text.endswith(stop[:size]):
                    longest = max(longest, size)
        return longest
