"""Conversations as OpenAI's interface writes them, `{"role": "user", "content": "hi"}`, as the turns of a template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llmbuild.errors import UsageError

Message = Mapping[str, Any]
"""A `role` and a `content`: text, or a list of `{"type": "text", "text": …}` parts.  Other keys are left alone."""

Turn = tuple[str, str]


def turns_of(messages: Sequence[Message]) -> tuple[str | None, list[Turn]]:
    """The system message, where the first is one, and the turns after it.

    Raises UsageError for an invalid message, for a system message in another place, and when no message requires an answer.
    """
    system: str | None = None
    turns: list[Turn] = []
    for place, message in enumerate(messages):
        if not isinstance(message, Mapping):
            raise UsageError(
                f"message {place} is {type(message).__name__}, and not a dictionary",
                fix='write it as {"role": "user", "content": "hi"}',
            )
        role, text = message.get("role"), _text(message.get("content"))
        if not isinstance(role, str) or text is None:
            raise UsageError(
                f"message {place} has no {'role' if text is not None else 'text'}",
                why="a message has a role, and text as its content",
                fix='write it as {"role": "user", "content": "hi"}',
            )
        if role != "system":
            turns.append((role, text))
        elif place == 0:
            system = text
        else:
            raise UsageError(f"message {place} is a system message", fix="put it first, and only one")
    if not turns or turns[-1][0] == "assistant":
        raise UsageError("there is nothing to answer", fix="end the conversation with a message of the user")
    return system, turns


def _text(content: Any) -> str | None:
    """The text of a message's content; None where it has another form."""
    if not isinstance(content, list):
        return content if isinstance(content, str) else None
    texts: list[str] = []
    for part in content:
        match part:
            case {"type": "text", "text": str(text)}:
                texts.append(text)
            case _:
                return None
    return "".join(texts)
