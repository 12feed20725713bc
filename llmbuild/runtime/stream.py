"""Turn tokens into text as they come, without showing half a character or a part of a stop string."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class TextStream:
    """Text of one answer.  `put` returns the text that may be shown now; `stopped` is true once a stop string was met."""

    def __init__(self, tokenizer: Any, stops: Sequence[str] = ()) -> None:
        self._tokenizer = tokenizer
        self._stops = [stop for stop in stops if stop]
        self._tokens: list[int] = []
        self._shown = ""
        self._read = 0
        self.stopped = False

    @property
    def text(self) -> str:
        """The text shown so far."""
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
        met = [position for stop in self._stops if (position := text.find(stop)) >= 0]
        if met:
            text = text[: min(met)]
            self.stopped = True
        elif not final:
            text = text[: len(text) - self._held_back(text)]
        # Bytes that are no character may turn what was shown before them into replacement characters; what comes after
        # them is shown all the same.
        fresh = text[self._read :]
        self._read = max(self._read, len(text))
        self._shown += fresh
        return fresh

    def _held_back(self, text: str) -> int:
        """How many characters at the end could still change: an unfinished character, or the start of a stop string."""
        whole = text.rstrip("\ufffd")
        longest = 0
        for stop in self._stops:
            for size in range(1, min(len(stop), len(whole) + 1)):
                if whole.endswith(stop[:size]):
                    longest = max(longest, size)
        return len(text) - len(whole) + longest
