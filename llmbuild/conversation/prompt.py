"""From messages to the prompt string, with the semantics of MLC LLM's conversations.

The prompt is the system text, then for every message

    role + role_content_sep + template of the role with the text in it + separator

where the separator is `seps[1]` after an assistant's message when there are two, and `seps[0]` otherwise.  A message
without text (the turn that the model is about to take) is `role + role_empty_sep`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llmbuild.conversation.templates import PLACEHOLDERS
from llmbuild.errors import InputError

Message = tuple[str, str | None]
"""A role and its text; None where the text is still to come."""


def render_prompt(template: Mapping[str, Any], messages: Sequence[Message], system_message: str | None = None) -> str:
    """The prompt of a conversation.

    `template` is the result of `resolve_template`.  The template's own `messages` come first.  `system_message` replaces
    the template's.  `system_prefix_token_ids` are ids, not text: see `prefix_token_ids`.  Raises InputError for a role
    that the template does not have.
    """
    return _insert_functions("".join(prompt_parts(template, messages, system_message)), template["function_string"])


def prompt_parts(
    template: Mapping[str, Any], messages: Sequence[Message], system_message: str | None = None
) -> list[str]:
    """The same as its parts: the system text where there is any, then each message.

    WebLLM encodes each part by itself.  Raises InputError for a role that the template does not have.
    """
    said = template["system_message"] if system_message is None else system_message
    system = ""
    if said or template.get("render_empty_system_message", True):
        system = template["system_template"].replace(PLACEHOLDERS["system"], said)
    after_other, after_assistant = template["seps"][0], template["seps"][-1]
    turns = [(role, text) for role, text in [*template["messages"], *messages]]
    if template["strip_reasoning_in_history"]:
        turns = _strip_reasoning(turns)
    parts = [system] if system else []
    for index, (role, text) in enumerate(turns):
        if role not in template["roles"]:
            raise InputError(
                f"the conversation template '{template['name']}' has no role '{role}'",
                why="it has " + ", ".join(f"'{known}'" for known in template["roles"]),
            )
        name = template["roles"][role]
        if text is None:
            parts.append(name + template["role_empty_sep"])
            continue
        # In the [INST] style the system message is already inside the first turn, whose role it then has.
        merged = index == 0 and system != "" and not template["add_role_after_system_message"]
        opening = "" if merged else name + template["role_content_sep"]
        content = template["role_templates"].get(role, PLACEHOLDERS[role]).replace(PLACEHOLDERS[role], text)
        after = after_assistant if role == "assistant" else after_other
        parts.append(opening + content + after)
    return parts


def prefix_token_ids(template: Mapping[str, Any]) -> list[int]:
    """The token ids that precede the encoded prompt of a new conversation (a "beginning of text" token, or none)."""
    return list(template["system_prefix_token_ids"] or [])


def _insert_functions(prompt: str, functions: str) -> str:
    """Put the functions at the last placeholder and remove the others, so that they are listed once."""
    before, placeholder, after = prompt.rpartition(PLACEHOLDERS["function"])
    if not placeholder:
        return prompt
    return (before + functions + after).replace(PLACEHOLDERS["function"], "")


def _strip_reasoning(turns: Sequence[Message]) -> list[Message]:
    """Remove an assistant's reasoning (up to `</think>`) in the turns before the last message of the user."""
    last_user = max((index for index, (role, _) in enumerate(turns) if role == "user"), default=-1)
    return [
        (role, text.rpartition("</think>")[2].lstrip("\n"))
        if role == "assistant" and index < last_user and text is not None and "</think>" in text
        else (role, text)
        for index, (role, text) in enumerate(turns)
    ]
