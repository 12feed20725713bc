"""A conversation with a model: template, tokenizer, session and sampler put together.

Each turn renders the whole conversation and feeds only the tokens that the KV cache does not hold yet, so that a
template may render earlier turns differently from how they were generated.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmbuild.conversation.prompt import render_prompt
from llmbuild.errors import InputError, UsageError
from llmbuild.runtime.chat_config import read_chat_config
from llmbuild.runtime.library import Library
from llmbuild.runtime.sampling import Sampler, Sampling
from llmbuild.runtime.session import PAGE_SIZE, Session
from llmbuild.runtime.stream import TextStream


@dataclass(slots=True)
class TurnStatistics:
    """What a turn took.  `finish` is "stop", "length" (the answer's limit) or "context" (the window is full)."""

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


def load_tokenizer(directory: Path) -> Any:
    """The model's tokenizer; raises InputError when there is no tokenizer.json, or none that the library reads."""
    path = directory / "tokenizer.json"
    if not path.is_file():
        raise InputError(
            "chat needs a tokenizer.json",
            where=str(directory),
            why="the checkpoint has none",
            fix="convert the checkpoint's tokenizer with transformers and save it beside the weights",
        )
    # The library's thread pool and TVM's would compete for the same cores.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # The library raises nothing more special.
        raise InputError("the tokenizer cannot be read", where=str(path), why=str(error)[:200]) from error


@dataclass(slots=True)
class Chat:
    """A running conversation.  `messages` are (role, content) pairs; the template's own messages come first."""

    session: Session
    tokenizer: Any
    template: Mapping[str, Any]
    stop_tokens: frozenset[int]
    context: int
    messages: list[tuple[str, str]] = field(default_factory=list)
    statistics: TurnStatistics = field(default_factory=TurnStatistics)
    _cached: list[int] = field(default_factory=list)

    @staticmethod
    def open(
        library: Library,
        parameters: Sequence[Any],
        directory: Path,
        *,
        system: str | None = None,
        context: int | None = None,
    ) -> Chat:
        """Start a conversation.  `context` bounds the tokens of the whole conversation (default: the model's window)."""
        config = read_chat_config(directory)
        template = dict(config["conv_template"])
        if system is not None:
            template["system_message"] = system
        window = library.metadata["context_window_size"]
        sliding = library.metadata["sliding_window_size"] != -1
        if sliding:
            # A sliding window forgets by itself: the cache holds the window and the chunk that is being added.
            limit = library.metadata["sliding_window_size"]
            capacity = limit + library.metadata["prefill_chunk_size"]
            context = context or (1 << 31)
        else:
            context = min(context or window, window)
            capacity = context
        capacity = -(-capacity // PAGE_SIZE) * PAGE_SIZE
        session = Session(library, parameters, capacity=capacity)
        session.add()
        eos = config["eos_token_id"]
        stop = {*(eos if isinstance(eos, list) else [eos]), *template["stop_token_ids"]}
        return Chat(session, load_tokenizer(directory), template, frozenset(stop), context)

    def tokens(self, messages: Sequence[tuple[str, str | None]]) -> list[int]:
        """The token ids of a rendered conversation."""
        prompt = render_prompt(self.template, messages)
        ids: list[int] = self.tokenizer.encode(prompt, add_special_tokens=False).ids
        return [*(self.template.get("system_prefix_token_ids") or []), *ids]

    def say(self, text: str, sampling: Sampling, *, seed: int | None = None, max_tokens: int = 1024) -> Iterator[str]:
        """One turn: yields the answer's text as it comes, then keeps question and answer in the conversation."""
        self.statistics = statistics = TurnStatistics()
        self.messages.append(("user", text))
        try:
            prompt = self.tokens([*self.messages, ("assistant", None)])
            if len(prompt) >= self.context:
                raise UsageError(
                    f"the conversation has {len(prompt)} tokens, the context window {self.context}",
                    fix="start a new conversation, or build with a larger context-window-size",
                )
            stream = TextStream(self.tokenizer, self.template["stop_str"])
            yield from self._generate(prompt, stream, Sampler(sampling, seed), max_tokens)
        except BaseException:
            # A turn that did not finish (an error, Ctrl-C) leaves the conversation as it was.
            self.messages.pop()
            raise
        self.messages.append(("assistant", stream.text))
        statistics.prompt_tokens = len(prompt)

    def _generate(self, prompt: list[int], stream: TextStream, sampler: Sampler, max_tokens: int) -> Iterator[str]:
        statistics = self.statistics
        started = time.perf_counter()
        logits = self._feed(prompt)
        statistics.prefill_seconds = time.perf_counter() - started
        started = time.perf_counter()
        while True:
            token = sampler.next(logits)
            statistics.answer_tokens += 1
            if token in self.stop_tokens:
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
            if len(self._cached) + 1 >= self.context:
                statistics.finish = "context"
                break
            logits = self.session.decode(token)
            self._cached.append(token)
        statistics.decode_seconds = time.perf_counter() - started
        rest = stream.finish()
        if rest:
            yield rest

    def _feed(self, prompt: list[int]) -> Any:
        """Bring the KV cache to hold exactly `prompt`; returns the logits after it."""
        shared = 0
        # At least the last token is fed again, since its logits are needed.
        while shared < min(len(self._cached), len(prompt) - 1) and self._cached[shared] == prompt[shared]:
            shared += 1
        if shared < len(self._cached) and self.session.window != -1:
            # A rolling cache may have dropped what a shorter prefix needs, so it starts over.
            self.session.remove()
            self.session.add()
            shared = 0
        else:
            self.session.truncate(shared)
        fresh = prompt[shared:]
        self._cached = self._cached[:shared]
        logits = self.session.prefill(fresh)
        self._cached.extend(fresh)
        self.statistics.prefilled_tokens = len(fresh)
        return logits
