"""Continue sequences of tokens: a session, the content of its KV cache, and the loop that samples one token after another.

Several callers may request continuations, one after another: each reuses the prefix of its prompt that is in the cache.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmbuild.errors import UsageError
from llmbuild.runtime.library import Library
from llmbuild.runtime.sampling import Sampler
from llmbuild.runtime.session import PAGE_SIZE, Session
from llmbuild.runtime.stream import TextStream

if TYPE_CHECKING:
    import numpy as np

BLOCK = 128
"""Tokens of a prompt in one step.  Larger steps are no faster on a CPU, and smaller ones are slower."""

_ENDLESS = 1 << 31
"""The context of a model with a sliding window, which evicts old tokens by itself."""


def never() -> bool:
    """The answer of an asker who reads to the end, when asked whether the rest is no longer needed."""
    return False


@dataclass(slots=True)
class TurnStatistics:
    """Statistics of an answer.  `finish` is "stop", "length" (the answer's limit), "context" (the window is full) or
    "cancelled" (whoever asked needs no more)."""

    prompt_tokens: int = 0
    prefilled_tokens: int = 0
    answer_tokens: int = 0
    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0
    finish: str = "stop"

    @property
    def prefill_rate(self) -> float:
        """Prompt tokens per second."""
        return self.prefilled_tokens / self.prefill_seconds if self.prefill_seconds else 0.0

    @property
    def decode_rate(self) -> float:
        """Answer tokens per second; the first one comes out of the prefill and is not counted."""
        return (self.answer_tokens - 1) / self.decode_seconds if self.decode_seconds else 0.0


class Completer:
    """A session with one sequence.  `context` bounds the tokens of a prompt and its answer (default: the model's window).

    Threads may share it: steps are serialized, and `lock` excludes the other threads for longer.
    """

    def __init__(self, library: Library, parameters: Sequence[Any], active: int, context: int | None = None) -> None:
        window = library.metadata["context_window_size"]
        if library.metadata["sliding_window_size"] == -1:
            self.context: int = min(context or window, window)
            capacity = self.context
        else:
            # The cache has room for the window and the chunk that is being added.
            self.context = context or _ENDLESS
            capacity = library.metadata["sliding_window_size"] + library.metadata["prefill_chunk_size"]
        self.statistics = TurnStatistics()
        self.lock = threading.RLock()
        self._active = active
        self._session: Session | None = Session(library, parameters, capacity=-(-capacity // PAGE_SIZE) * PAGE_SIZE)
        self._session.add()
        # None during a step and after an interrupted one: the content of the cache is then unknown.
        self._cached: list[int] | None = []
        self._blocks = 0
        self._turn = 0

    def close(self) -> None:
        """Free the cache, and release library and weights."""
        with self.lock:
            self._session = None
            self._turn += 1

    def require_open(self) -> None:
        """Raise UsageError after `close`."""
        self._open_session()

    def require_room(self, prompt: Sequence[int]) -> None:
        """Raise UsageError where the context has no room for an answer, and for an empty prompt."""
        if not prompt:
            raise UsageError("the prompt has no tokens", fix="begin with some text")
        if len(prompt) >= self.context:
            raise UsageError(
                f"the prompt has {len(prompt)} tokens, the context window {self.context}",
                fix="shorten the prompt or start a new conversation, or build with a larger context-window-size",
            )

    def complete(
        self,
        prompt: Sequence[int],
        stream: TextStream,
        sampler: Sampler,
        *,
        stop: Collection[int],
        max_tokens: int,
        exact: bool,
        cancelled: Callable[[], bool] = never,
    ) -> Iterator[str]:
        """Yield the text that follows a prompt, piece by piece, until a token of `stop`.

        `cancelled` is asked before each step, also of a long prompt; once it is true, the answer ends.

        When `exact`, the same prompt gives the same logits to the last bit whatever the cache contained before: tokens that
        were decoded one by one are not reused, since a prefill adds the same numbers up in another order.

        Raises UsageError as `require_room` does, and where the next piece is requested after another answer has begun.
        """
        self.require_room(prompt)
        with self.lock:
            self._turn += 1
            turn = self._turn
            self.statistics = statistics = TurnStatistics(prompt_tokens=len(prompt))
            started = time.perf_counter()
            logits = self._feed(prompt, exact=exact, cancelled=cancelled)
            statistics.prefill_seconds = time.perf_counter() - started
        if logits is None:
            statistics.finish = "cancelled"
            return
        started = time.perf_counter()
        length = len(prompt)
        while True:
            # The rows of the head after the tokenizer's last token are padding.
            token = sampler.next(logits[: self._active])
            statistics.answer_tokens += 1
            if token in stop:
                break
            piece = stream.put(token)
            statistics.decode_seconds = time.perf_counter() - started
            if piece:
                yield piece
            if stream.stopped:
                break
            if statistics.answer_tokens >= max_tokens:
                statistics.finish = "length"
                break
            if length + 1 >= self.context:
                statistics.finish = "context"
                break
            if cancelled():
                statistics.finish = "cancelled"
                break
            logits = self._decode(token, turn)
            length += 1
        statistics.decode_seconds = time.perf_counter() - started
        rest = stream.finish()
        if rest:
            yield rest

    def logits(self, ids: Sequence[int]) -> np.ndarray:
        """Logits [ids, vocabulary] after each token of a sequence; raises UsageError when it does not fit the context."""
        import numpy as np

        if not ids:
            raise UsageError("logits need at least one token")
        if len(ids) > self.context:
            raise UsageError(
                f"there are {len(ids)} tokens, and the context window has {self.context}",
                fix="pass fewer tokens, or build with a larger context-window-size",
            )
        with self.lock:
            session = self._open_session()
            self._turn += 1
            self._restart(session)
            parts = [self._step(ids[at : at + BLOCK], session.extend) for at in range(0, len(ids), BLOCK)]
        return np.concatenate(parts)

    def _decode(self, token: int, turn: int) -> np.ndarray:
        """Append a token of the answer that began as `turn`; returns the logits after it."""
        with self.lock:
            session = self._open_session()
            if turn != self._turn:
                raise UsageError(
                    "this answer cannot go on: the model has begun another one",
                    why="a model answers one prompt at a time",
                    fix="read a stream to its end before the next prompt, or load the model twice",
                )
            return self._step([token], lambda tokens: session.decode(tokens[0]))

    def _open_session(self) -> Session:
        if self._session is None:
            raise UsageError("the model is closed", fix="load it again: llmbuild.load(…)")
        return self._session

    def _restart(self, session: Session) -> list[int]:
        self._cached = None
        self._blocks = 0
        session.remove()
        session.add()
        self._cached = []
        return self._cached

    def _step(self, tokens: Sequence[int], run: Callable[[Sequence[int]], np.ndarray]) -> np.ndarray:
        """Append tokens to the cache, and to the record of its content."""
        cached, self._cached = self._cached, None
        logits = run(tokens)
        assert cached is not None
        cached.extend(tokens)
        self._cached = cached
        return logits

    def _feed(self, prompt: Sequence[int], *, exact: bool, cancelled: Callable[[], bool]) -> np.ndarray | None:
        """Make `prompt` the exact content of the KV cache; returns the logits after it, or None when it was cancelled."""
        session = self._open_session()
        cached, self._cached = self._cached, None
        if cached is None:
            cached = self._restart(session)
        shared = 0
        # At least the last token is fed again, since its logits are needed.
        while shared < min(len(cached), len(prompt) - 1) and cached[shared] == prompt[shared]:
            shared += 1
        if exact:
            shared = min(shared, self._blocks) // BLOCK * BLOCK
        if shared < len(cached) and session.window != -1:
            # A rolling cache may have evicted tokens that a shorter prefix needs, so it is reset.
            cached = self._restart(session)
            shared = 0
        session.truncate(shared)
        del cached[shared:]
        self._cached = cached
        self._blocks = min(self._blocks, shared)
        for at in range(shared, len(prompt), BLOCK):
            if cancelled():
                return None
            logits = self._step(prompt[at : at + BLOCK], session.prefill)
            self.statistics.prefilled_tokens = len(cached) - shared
            if exact:
                self._blocks = len(cached)
        return logits
