"""The messages of a request as the turns of a template."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from llmbuild.errors import UsageError
from llmbuild.runtime.messages import Turn, turns_of
from llmbuild.serving.errors import RequestError

ROLES = ("system", "developer", "user", "assistant")
"""The roles that are understood; `developer` is OpenAI's newer word for `system`."""


_TAKEN = {"role", "content", "name"}
"""What a message may have.  `name` says who of several users speaks, which no template has a place for."""

_EMPTY: Sequence[Any] = (None, [], "", False)
"""What a client leaves in the other fields of an answer that it sends back."""


def read_messages(messages: Sequence[Any]) -> tuple[str | None, list[Turn]]:
    """The system message and the turns of a conversation.

    Raises RequestError for an invalid one, for a field that is not known, and for tools, images and sounds, which no model
    here takes.
    """
    plain = [_checked(f"messages[{place}]", message) for place, message in enumerate(messages)]
    try:
        return turns_of(plain)
    except UsageError as error:
        fix = f": {error.fix}" if error.fix else ""
        raise RequestError(f"{error.what}{fix}", param="messages", code="invalid_value") from None


def _checked(place: str, message: Any) -> Any:
    """A message with a role that templates have; what else is wrong with its form is left to `turns_of`."""
    if not isinstance(message, dict):
        return message
    role = message.get("role")
    if role in ("tool", "function") or message.get("tool_calls") or message.get("function_call"):
        raise _unsupported(place, "tools")
    if message.get("audio"):
        raise _unsupported(f"{place}.audio", "sounds")
    _require_known(place, message, _TAKEN)
    if isinstance(role, str) and role not in ROLES:
        raise RequestError(
            f"there is no role '{role[:100]}': {', '.join(ROLES[:-1])} and {ROLES[-1]} are known",
            param=f"{place}.role",
            code="invalid_value",
        )
    content = message.get("content")
    for number, part in enumerate(content if isinstance(content, list) else ()):
        kind = part.get("type") if isinstance(part, dict) else None
        if isinstance(kind, str) and kind != "text":
            raise _unsupported(f"{place}.content[{number}]", f"parts of type '{kind[:100]}'")
        if isinstance(part, dict):
            _require_known(f"{place}.content[{number}]", part, {"type", "text"})
    return {"role": "system" if role == "developer" else role, "content": content}


def _require_known(place: str, given: Mapping[str, Any], taken: Collection[str]) -> None:
    for name, value in given.items():
        if name not in taken and value not in _EMPTY:
            param = f"{place}.{name[:100]}"
            raise RequestError(f"there is no parameter '{param}'", param=param, code="unknown_parameter")


def _unsupported(param: str, what: str) -> RequestError:
    return RequestError(
        f"this server does not support {what}: a message has text alone", param=param, code="unsupported_parameter"
    )
