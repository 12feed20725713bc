"""A checkpoint's own chat template: where it is, and what transformers gives it beside the messages."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmbuild.checkpoints.files import is_file, parse_json, read_bounded
from llmbuild.checkpoints.names import CHAT_TEMPLATE_FILE, CHAT_TEMPLATE_JSON, SPECIAL_TOKENS_FILE
from llmbuild.conversation.special_tokens import special_tokens
from llmbuild.errors import InputError, Where

_CONFIG = "tokenizer_config.json"
_MOST_BYTES = 1 << 20
"""The longest published chat template has 30 kB."""


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """The Jinja text, the file (and key) that it is from, and the special tokens by their names."""

    text: str
    where: Where
    tokens: Mapping[str, str]


def read_chat_template(directory: Path, tokenizer_config: bytes | None) -> ChatTemplate | None:
    """The template that `apply_chat_template` takes without tools, or None where the checkpoint has none.

    chat_template.jinja comes before tokenizer_config.json (whose content is given, since a GGUF file's is made), and
    chat_template.json, which processors have, is last.  Raises InputError when a file is not valid, or has only templates
    with other names than "default".
    """
    config = parse_json(tokenizer_config, _CONFIG) if tokenizer_config is not None else {}
    made = not is_file(directory / _CONFIG)
    where = Where("the GGUF file", key="tokenizer.chat_template") if made else Where(_CONFIG, key="chat_template")
    found = _own_file(directory) or _of_config(config, where) or _of_processor(directory)
    if found is None:
        return None
    text, where = found
    old = directory / SPECIAL_TOKENS_FILE
    older = parse_json(read_bounded(old, old.name), old.name) if is_file(old) else {}
    return ChatTemplate(text, where, special_tokens(config, older))


def check_chat_template(names: Collection[str], tokenizer_config: Mapping[str, Any]) -> None:
    """Raise InputError where the names of a checkpoint's files and the content of tokenizer_config.json show that it has no chat
    template, or none that is taken."""
    if CHAT_TEMPLATE_FILE in names:
        return
    if _of_config(tokenizer_config, Where(_CONFIG, key="chat_template")) is None and CHAT_TEMPLATE_JSON not in names:
        raise no_chat_template("")


def no_chat_template(where: str) -> InputError:
    """The error of a checkpoint without any chat template."""
    return InputError(
        "the checkpoint has no chat template",
        where=where,
        why="there is none in tokenizer_config.json, and no chat_template.jinja",
        fix='set conv-template to "LM" for a base model, else to the template that it was tuned with',
    )


def _own_file(directory: Path) -> tuple[str, Where] | None:
    path = directory / CHAT_TEMPLATE_FILE
    if not is_file(path):
        return None
    try:
        return read_bounded(path, path.name, _MOST_BYTES).decode("utf-8"), Where(path.name)
    except UnicodeDecodeError as error:
        raise InputError("the chat template is not UTF-8 text", where=path.name, why=str(error)) from error


def _of_config(config: Mapping[str, Any], where: Where) -> tuple[str, Where] | None:
    value = config.get("chat_template")
    if value is None or value in ([], {}):
        return None
    if isinstance(value, list | dict):
        # transformers writes a list, and reads an object of names and texts as well.
        items = value.items() if isinstance(value, dict) else _named(value)
        named = {str(name): template for name, template in items}
        if "default" not in named:
            raise InputError(
                'none of the chat templates is called "default"',
                where=where,
                why="they are called " + ", ".join(name[:50] for name in named) if named else "the list has no names",
                fix="give the right one the name default, or write it into chat_template.jinja",
            )
        value = named["default"]
    if not isinstance(value, str):
        raise InputError(
            "the chat template is neither a text nor a list of named ones",
            where=where,
            why=f"its type is {type(value).__name__}",
            fix="write it into chat_template.jinja, or set conv-template to a registered template or to a file of your own",
        )
    return value, where


def _named(items: list[Any]) -> list[tuple[Any, Any]]:
    return [(item.get("name"), item.get("template")) for item in items if isinstance(item, dict)]


def _of_processor(directory: Path) -> tuple[str, Where] | None:
    path = directory / CHAT_TEMPLATE_JSON
    if not is_file(path):
        return None
    value = parse_json(read_bounded(path, path.name, _MOST_BYTES), path.name).get("chat_template")
    return (value, Where(path.name, key="chat_template")) if isinstance(value, str) else None
