"""Rendering a checkpoint's chat template in a process of its own, which has an end to its time, memory and output."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llmbuild.conversation import jinja_child
from llmbuild.errors import ToolchainError

SECONDS = 5.0
"""Computing time of one template on all its chats.  Waiting for a busy machine does not count."""
WALL_SECONDS = 120.0
"""Even a machine that is very busy has computed for five seconds by then."""
MOST_OUTPUT = 1_000_000
"""Characters of all rendered chats together."""

_CHILD = jinja_child.__file__


class JinjaError(Exception):
    """A template that cannot be used at all; the text is the reason."""


@dataclass(frozen=True, slots=True)
class Chat:
    """Messages as (role, text) pairs; `prompt` has the header of the answer follow them."""

    messages: tuple[tuple[str, str], ...]
    prompt: bool = True


@dataclass(frozen=True, slots=True)
class Rendered:
    """The text of a chat, or why the template refuses it."""

    text: str | None
    refusal: str = ""


def render_chats(template: str, tokens: Mapping[str, str], chats: Sequence[Chat]) -> list[Rendered]:
    """Each chat as transformers' `apply_chat_template` renders it; `tokens` are the special tokens by their names.

    Raises JinjaError when the template is not valid, or exceeds a limit, and ToolchainError when no process can be started.
    """
    task = {
        "path": sys.path,
        "seconds": SECONDS,
        "most": MOST_OUTPUT,
        "template": template,
        "tokens": dict(tokens),
        "chats": [
            {
                "messages": [{"role": role, "content": text} for role, text in chat.messages],
                "add_generation_prompt": chat.prompt,
            }
            for chat in chats
        ],
    }
    command = [sys.executable, "-I", _CHILD]
    try:
        done = subprocess.run(
            command, check=False, input=json.dumps(task), capture_output=True, text=True, timeout=WALL_SECONDS
        )
        written, ended, words = done.stdout, done.returncode, done.stderr
    except subprocess.TimeoutExpired as error:
        written, ended, words = (error.stdout or b"").decode(), -signal.SIGVTALRM, ""
    except OSError as error:
        raise ToolchainError(
            "no process can be started for a chat template", where=sys.executable, why=error.strerror
        ) from error
    answers = [json.loads(line) for line in written.splitlines(keepends=True) if line.endswith("\n")]
    for answer in answers:
        if "bad" in answer:
            raise JinjaError(f"it is not a valid Jinja template: {answer['bad']}")
        if "over" in answer:
            raise JinjaError(f"it writes more than {MOST_OUTPUT:,} characters")
    if len(answers) < len(chats):
        if ended == -signal.SIGVTALRM:
            raise JinjaError(f"it computes for more than {SECONDS:g} seconds")
        raise JinjaError(f"its process ended with {ended}: {words[-200:].strip()}".removesuffix(": "))
    return [_rendered(answer.get("text"), answer.get("refused", "")) for answer in answers]


def _rendered(text: str | None, refusal: str) -> Rendered:
    if text is not None and any("\ud800" <= letter <= "\udfff" for letter in text):
        return Rendered(None, "it writes half of a surrogate pair, which no tokenizer encodes")
    return Rendered(text, refusal)
