"""Read mlc-chat-config.json, with a check of the keys that a conversation and a verification require."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmbuild.checkpoints.names import CHAT_CONFIG
from llmbuild.conversation.templates import fill_template
from llmbuild.errors import UsageError, VerifyError, Where
from llmbuild.jsontext import parse_json
from llmbuild.runtime.sampling import SAMPLING_NAMES


def read_chat_config(directory: Path) -> Mapping[str, Any]:
    """The content of mlc-chat-config.json.

    Raises UsageError when the model has not been built, VerifyError when the file is damaged, and InputError when its
    template is none.
    """
    path = directory / CHAT_CONFIG
    # A Path raises where a name is too long.
    if not os.path.isfile(path):  # noqa: PTH113
        raise _no_model(directory)
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


def _no_model(directory: Path) -> UsageError:
    """The error for a path without a built model."""
    fix = "run `llmbuild build` first"
    if not os.path.isdir(directory):  # noqa: PTH112
        return UsageError("there is no such model directory", where=str(directory), fix=fix)
    models = sorted(path.parent.name for path in directory.glob(f"*/{CHAT_CONFIG}"))
    if models:
        return UsageError(
            f"no {CHAT_CONFIG} here",
            where=str(directory),
            why=f"it holds the model directories {', '.join(models)}",
            fix="name one of them",
        )
    checkpoint = (directory / "config.json").is_file()
    why = "it is a checkpoint: a model is built from it" if checkpoint else None
    return UsageError(f"no {CHAT_CONFIG} here", where=str(directory), why=why, fix=fix)


def _wrong_key(config: Any) -> str | None:
    """A key that is missing or of a wrong type, or None."""
    if not isinstance(config, dict):
        return "conv_template"
    for key in ("vocab_size", "active_vocab_size"):
        size = config.get(key)
        if type(size) is not int or not 0 < size < 1 << 31:
            return key
    for key in SAMPLING_NAMES:
        value = config.get(key)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            return key
    eos = config.get("eos_token_id")
    if eos is not None and not all(type(token) is int for token in (eos if isinstance(eos, list) else [eos])):
        return "eos_token_id"
    return None if isinstance(config.get("conv_template"), dict) else "conv_template"
