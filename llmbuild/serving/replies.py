"""Replies in the form of OpenAI's interface: whole, and as server-sent events."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from llmbuild.runtime.completer import TurnStatistics

_FINISH: Mapping[str, str] = {"context": "length"}
"""OpenAI's words for the ends of answers, where they are others than ours."""

DONE = b"data: [DONE]\n\n"
"""The end of a stream."""


@dataclass(frozen=True, slots=True)
class Reply:
    """The reply to one request to a model; the subclasses say what a choice looks like."""

    model: str
    id: str = field(default_factory=lambda: f"cmpl-{secrets.token_hex(12)}")
    created: int = field(default_factory=lambda: int(time.time()))
    whole_object: ClassVar[str] = "text_completion"
    part_object: ClassVar[str] = "text_completion"

    def whole(self, text: str, statistics: TurnStatistics) -> dict[str, Any]:
        """The reply to a request without a stream."""
        choice = self._choice(self._content(text), finish=_finish(statistics))
        return {**self._head(self.whole_object), "choices": [choice], "usage": usage(statistics)}

    def opening(self) -> bytes:
        """What a stream begins with, before the first piece."""
        return b""

    def piece(self, text: str) -> bytes:
        """The event of a piece of the answer."""
        return self._part(self._choice(self._delta(text), finish=None))

    def closing(self, statistics: TurnStatistics, *, with_usage: bool) -> bytes:
        """The events after the last piece."""
        last = self._part(self._choice(self._delta(""), finish=_finish(statistics)))
        spent = event({**self._head(self.part_object), "choices": [], "usage": usage(statistics)})
        return last + (spent if with_usage else b"") + DONE

    def _part(self, choice: Mapping[str, Any]) -> bytes:
        return event({**self._head(self.part_object), "choices": [choice]})

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}

    def _choice(self, content: Mapping[str, Any], finish: str | None) -> dict[str, Any]:
        return {"index": 0, **content, "logprobs": None, "finish_reason": finish}

    def _content(self, text: str) -> dict[str, Any]:
        return {"text": text}

    def _delta(self, text: str) -> dict[str, Any]:
        return {"text": text}


@dataclass(frozen=True, slots=True)
class ChatReply(Reply):
    """Of `/v1/chat/completions`."""

    id: str = field(default_factory=lambda: f"chatcmpl-{secrets.token_hex(12)}")
    whole_object: ClassVar[str] = "chat.completion"
    part_object: ClassVar[str] = "chat.completion.chunk"

    def opening(self) -> bytes:
        return self._part(self._choice({"delta": {"role": "assistant", "content": ""}}, finish=None))

    def _content(self, text: str) -> dict[str, Any]:
        return {"message": {"role": "assistant", "content": text, "refusal": None}}

    def _delta(self, text: str) -> dict[str, Any]:
        return {"delta": {"content": text} if text else {}}


def event(value: Mapping[str, Any]) -> bytes:
    """A server-sent event with a JSON value."""
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n".encode()


def usage(statistics: TurnStatistics) -> dict[str, Any]:
    """The tokens of an answer; `cached_tokens` are those of its prompt that were computed for an earlier one, in whole
    blocks."""
    prompt, answer = statistics.prompt_tokens, statistics.answer_tokens
    return {
        "prompt_tokens": prompt,
        "completion_tokens": answer,
        "total_tokens": prompt + answer,
        "prompt_tokens_details": {"cached_tokens": prompt - statistics.prefilled_tokens},
    }


def _finish(statistics: TurnStatistics) -> str:
    return _FINISH.get(statistics.finish, statistics.finish)
