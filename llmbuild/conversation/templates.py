"""Conversation templates: how a list of messages becomes a prompt, as data.

The registered templates are TOML tables in `data/`, one file a model family, with defaults left out.  A user's own
template is a TOML or JSON file with the same fields.  Either resolves to the JSON object of `conv_template` in
mlc-chat-config.json, with all its fields in MLC's order.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from llmbuild.canonical import Json
from llmbuild.errors import InputError, LlmbuildError, Where, did_you_mean, raise_all
from llmbuild.jsontext import parse_json
from llmbuild.tomlfile import MOST_BYTES, TomlError, load_toml

PLACEHOLDERS: Mapping[str, str] = {
    "system": "{system_message}",
    "user": "{user_message}",
    "assistant": "{assistant_message}",
    "tool": "{tool_message}",
    "function": "{function_string}",
}
"""The placeholder of a message's text in the template of each role."""

CHECKPOINT, CHECKPOINT_ANYWAY = "checkpoint", "checkpoint!"
"""What stands for a name where the template is derived from the checkpoint's chat template; the second accepts differences."""

_DATA = Path(__file__).parent / "data"


@dataclass(frozen=True, slots=True)
class _Field:
    """One field of a template: its default (None with `required` means that it has none) and the type of its value."""

    name: str
    default: Any
    expected: str
    accepts: Callable[[Any], bool]
    required: bool = False
    written: bool = True
    """Whether the JSON object has it also where it is the default."""


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _is_ids(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(item, int) and not isinstance(item, bool) and 0 <= item < 1 << 31 for item in value
    )


def _is_text_table(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(item, str) for item in value.values())


def _is_messages(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(item, list) and len(item) == 2 and isinstance(item[0], str) and isinstance(item[1], str | None)
        for item in value
    )


_FIELDS = (
    _Field("name", None, "a string", _is_text),
    _Field("system_template", "{system_message}", "a string", _is_text),
    _Field("system_message", "", "a string", _is_text),
    _Field("render_empty_system_message", True, "true or false", _is_flag, written=False),
    _Field("system_prefix_token_ids", None, "a list of token ids", lambda value: value is None or _is_ids(value)),
    _Field("add_role_after_system_message", True, "true or false", _is_flag),
    _Field("roles", None, "a table of strings", _is_text_table, required=True),
    _Field("role_templates", {}, "a table of strings", _is_text_table),
    _Field("messages", [], "a list of [role, text] pairs", _is_messages),
    _Field("seps", None, "a list of one or two strings", lambda value: _is_texts(value) and len(value) in (1, 2), True),
    _Field("role_content_sep", "", "a string", _is_text),
    _Field("role_empty_sep", "", "a string", _is_text),
    _Field("stop_str", [], "a list of strings", _is_texts),
    _Field("stop_token_ids", [], "a list of token ids", _is_ids),
    _Field("strip_reasoning_in_history", False, "true or false", _is_flag),
    _Field("function_string", "", "a string", _is_text),
    _Field("use_function_calling", False, "true or false", _is_flag),
)
"""In the order in which mlc-chat-config.json has them.  Older runtimes do not know
`render_empty_system_message`, so that only templates that set it have it."""


def resolve_template(name: str, base: Path) -> Mapping[str, Json]:
    """The JSON object of a registered template, or of a user's file when `name` is a path (relative to `base`).

    A path contains a slash or ends with .json or .toml.  Raises InputError (or a MultiError of them) for an
    unknown name, an unreadable file, or fields that are missing, unknown or of the wrong type.
    """
    if "/" in name or "\\" in name or name.endswith((".json", ".toml")):
        return _from_file(base / name, name)
    fields = _registered().get(name)
    if fields is None:
        raise InputError(
            f"there is no conversation template '{name}'",
            why=did_you_mean(name, TEMPLATE_NAMES),
            fix="name one of: " + ", ".join(TEMPLATE_NAMES) + "; or give the path of a file with your own",
        )
    return fill_template(fields, name=name, file=name)


def fill_template(fields: Mapping[str, Any], *, name: str, file: str) -> Mapping[str, Json]:
    """Check a template's fields one by one and add the defaults; `name` is used where the fields have none."""
    problems: list[LlmbuildError] = []
    known = [field.name for field in _FIELDS]
    for key in fields:
        if key not in known:
            problems.append(
                InputError(
                    "a conversation template has no such field",
                    where=Where(file, key=key),
                    why=did_you_mean(key, known),
                    fix="the fields are: " + ", ".join(known),
                )
            )
    filled: dict[str, Any] = {}
    for field in _FIELDS:
        if field.name not in fields:
            if field.required:
                problems.append(
                    InputError(f"a conversation template must have '{field.name}', {field.expected}", where=file)
                )
            if field.written:
                filled[field.name] = field.default
        elif not field.accepts(fields[field.name]):
            value = json.dumps(fields[field.name], ensure_ascii=False, default=str)
            problems.append(InputError(f"must be {field.expected}, not {value:.80}", where=Where(file, key=field.name)))
        else:
            filled[field.name] = fields[field.name]
    if not problems:
        problems.extend(_check_roles(filled, file))
    raise_all(problems)
    filled["name"] = filled["name"] or name
    filled["role_templates"] = {
        "user": PLACEHOLDERS["user"],
        "assistant": PLACEHOLDERS["assistant"],
        "tool": PLACEHOLDERS["tool"],
    } | filled["role_templates"]
    return filled


def _check_roles(filled: Mapping[str, Any], file: str) -> list[LlmbuildError]:
    problems: list[LlmbuildError] = []
    for role in ("user", "assistant"):
        if role not in filled["roles"]:
            problems.append(InputError(f"the role '{role}' is missing", where=Where(file, key="roles")))
    for field in ("roles", "role_templates"):
        for role in filled[field]:
            if role not in PLACEHOLDERS:
                problems.append(
                    InputError(
                        "there is no such role",
                        where=Where(file, key=f"{field}.{role}"),
                        why=did_you_mean(role, PLACEHOLDERS),
                        fix="the roles are: " + ", ".join(PLACEHOLDERS),
                    )
                )
    for role, template in filled["role_templates"].items():
        if role in PLACEHOLDERS and PLACEHOLDERS[role] not in template:
            problems.append(
                InputError(
                    f"the template of a role must contain {PLACEHOLDERS[role]}, or its messages would be lost",
                    where=Where(file, key=f"role_templates.{role}"),
                )
            )
    return problems


def _from_file(path: Path, written: str) -> Mapping[str, Json]:
    try:
        # A pipe would block whoever opens it.
        if path.is_fifo():
            raise ValueError("it is a pipe")
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
        if len(data) > MOST_BYTES:
            raise ValueError(f"it has more than {MOST_BYTES} bytes")
        text = data.decode("utf-8")
    except (OSError, ValueError) as error:
        why = "it is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else str(error)
        raise InputError(
            "the conversation template cannot be read",
            where=written,
            why=error.strerror or why if isinstance(error, OSError) else why,
            fix="give the path relative to the manifest, or the name of a registered template",
        ) from error
    try:
        fields = parse_json(data) if path.suffix == ".json" else load_toml(text.replace("\r\n", "\n"))
    except json.JSONDecodeError as error:
        raise InputError(
            "the conversation template is not valid JSON", where=Where(written, error.lineno), why=error.msg
        ) from error
    except TomlError as error:
        raise InputError(
            "the conversation template is not valid TOML", where=Where(written, error.line), why=str(error)
        ) from error
    except ValueError as error:
        raise InputError("the conversation template is refused", where=written, why=str(error)) from error
    if not isinstance(fields, dict):
        raise InputError("a conversation template must be an object with fields", where=written)
    return fill_template(fields, name=path.stem, file=written)


@cache
def _registered() -> Mapping[str, Mapping[str, Any]]:
    """Every registered template's own fields, by name."""
    found: dict[str, Mapping[str, Any]] = {}
    for path in sorted(_DATA.glob("*.toml")):
        found.update(tomllib.loads(path.read_text(encoding="utf-8")))
    return found


TEMPLATE_NAMES: tuple[str, ...] = tuple(sorted(_registered()))
"""The names of the registered templates."""
