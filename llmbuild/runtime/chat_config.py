"""mlc-chat-config.json as a conversation and a check need it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmbuild.conversation.templates import fill_template
from llmbuild.errors import UsageError, VerifyError, Where
from llmbuild.jsontext import parse_json


def read_chat_config(directory: Path) -> Mapping[str, Any]:
    """The content of mlc-chat-config.json.

    Raises UsageError when the model has not been built, VerifyError when the file is damaged, and InputError when its
    template is none.
    """
    path = directory / "mlc-chat-config.json"
    if not path.is_file():
        raise UsageError("no mlc-chat-config.json here", where=str(directory), fix="run `llmbuild build` first")
    try:
        config = parse_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise VerifyError("the model's configuration is not JSON", where=str(path), why=str(error)) from error
    wrong = _wrong_key(config)
    if wrong is not None:
        raise VerifyError(
            "the model's configuration is damaged", where=Where(str(path), key=wrong), fix="run `llmbuild build`"
        )
    return {**config, "conv_template": fill_template(config["conv_template"], name="", file=str(path))}


def _wrong_key(config: Any) -> str | None:
    """A key that is missing or of a wrong type, or None."""
    if not isinstance(config, dict):
        return "conv_template"
    for key in ("vocab_size", "active_vocab_size"):
        size = config.get(key)
        if type(size) is not int or not 0 < size < 1 << 31:
            return key
    eos = config.get("eos_token_id")
    if not all(type(token) is int for token in (eos if isinstance(eos, list) else [eos])):
        return "eos_token_id"
    return None if isinstance(config.get("conv_template"), dict) else "conv_template"
