"""What is read from the files of a store or a project is checked here, field by field, before anything uses it.

A store may be shared with others, come out of an archive or lie in a repository.  Its records are JSON of the right form or
they do not count: an invalid record is dropped, is a miss, and is named by `llmbuild cache verify`.  Every function here raises
ValueError with one sentence, and nothing else.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from llmbuild.canonical import Digest, Json, parse_digest
from llmbuild.engine.action import Action, Input, JsonInput, TreeInput
from llmbuild.engine.names import astray
from llmbuild.jsontext import parse_json
from llmbuild.printable import printable

MOST_RECORD = 16 << 20
"""The most bytes of a trace, an action's record or a history: thousands of parameters fit into a fraction of it."""

_MOST_NUMBER = 1 << 63
_MOST_TEXT = 4096
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+@=,-]{0,200}").fullmatch
_KEY_PARTS = frozenset({"kind", "version", "params", "inputs", "tools"})
_FORMS: Mapping[str, type[TreeInput] | type[JsonInput]] = {"tree": TreeInput, "json": JsonInput}


def json_object(data: bytes) -> dict[str, Any]:
    """The JSON object of a record's bytes."""
    return mapping(parse_json(data, most_bytes=MOST_RECORD), "the record")


def mapping(value: object, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{what} is no JSON object")
    return value


def text(value: object, what: str) -> str:
    """A text that a person may see: no control characters, and no longer than any label or path."""
    if type(value) is str and len(value) <= _MOST_TEXT and value.isprintable():
        # Nearly every one is such a text, and a null build reads thousands.
        return value
    if not isinstance(value, str):
        raise ValueError(f"{what} is no text")
    if len(value) > _MOST_TEXT:
        raise ValueError(f"{what} has {len(value)} characters")
    if printable(value) != value or "\n" in value or "\t" in value:
        raise ValueError(f"{what} has control characters")
    return value


def texts(value: object, what: str, most: int) -> tuple[str, ...]:
    """At most `most` texts, each as `text` takes it."""
    if not isinstance(value, list) or len(value) > most:
        raise ValueError(f"{what} are no list of at most {most} texts")
    return tuple(text(one, what) for one in value)


def count(value: object, what: str) -> int:
    """A number of bytes or of things."""
    if type(value) is not int or not 0 <= value < _MOST_NUMBER:
        raise ValueError(f"{what} is no count")
    return value


def seconds(value: object, what: str) -> float:
    """A time or a duration in seconds."""
    if type(value) not in (int, float) or not math.isfinite(value) or not 0 <= value < 1e12:  # type: ignore[arg-type, operator]
        raise ValueError(f"{what} is no number of seconds")
    return value  # type: ignore[return-value]


def file_path(value: object) -> str:
    """The path of a file of a tree: relative, and to nowhere but below the directory that it is laid out in."""
    if not isinstance(value, str):
        raise ValueError("a path in it is no text")
    if _PLAIN_NAME(value):
        # Nearly every file lies at the top and has such a name.
        return value
    text(value, f"the path {printable(value[:80])}")
    if (why := astray(value)) is not None:
        raise ValueError(f"the path {value[:80]} is none of a file: {why}")
    return value


def action_key(value: object) -> dict[str, Any]:
    """The key of an action: kind, version, params, inputs, tools, and nothing else."""
    key = mapping(value, "the key")
    if key.keys() != _KEY_PARTS:
        raise ValueError("the key has other parts than an action's")
    text(key["kind"], "the key's kind")
    if type(key["version"]) is not int:
        raise ValueError("the key's version is no number")
    mapping(key["params"], "the key's params")
    inputs(key["inputs"])
    for name, identity in mapping(key["tools"], "the key's tools").items():
        text(name, "the name of a tool")
        text(identity, "a tool")
    return key


def inputs(value: object) -> dict[str, Input]:
    """The inputs of an action's key."""
    found: dict[str, Input] = {}
    for name, one in mapping(value, "the key's inputs").items():
        form = mapping(one, "an input").get("form")
        if one.keys() != {"form", "digest"} or not isinstance(form, str) or form not in _FORMS:
            raise ValueError("an input has another form")
        # A task's input is laid out under its name.
        if "/" in file_path(name):
            raise ValueError("the name of an input is a path")
        found[name] = _FORMS[form](parse_digest(one["digest"]))
    return found


def action(key: object, hints: object) -> Action:
    """An action out of its key and its hints."""
    value = action_key(key)
    own: dict[str, Json] = mapping(hints, "the hints")
    return Action(value["kind"], value["version"], value["params"], inputs(value["inputs"]), value["tools"], own)


def optional_digest(value: object) -> Digest | None:
    return None if value is None else parse_digest(value)
