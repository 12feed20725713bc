"""The first check of a manifest: keys, types and ranges, by pydantic, in the terms of a manifest's author.

Values with errors are reported and removed, so that the rest of the manifest is checked in the same run.
"""

from __future__ import annotations

import copy
import datetime
import json
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from llmbuild.errors import did_you_mean
from llmbuild.manifest.misplaced import SYNONYMS, fitting_table, right_table, spelled
from llmbuild.manifest.problems import Problems
from llmbuild.manifest.schema import ManifestTable, keys_of
from llmbuild.manifest.schema_table import LONGEST
from llmbuild.tomlfile import KeyPath, dotted

# The type names here are pydantic's error types.
_EXPECTED = {
    "string_type": "a string",
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a table",
    "model_type": "a table",
    "model_attributes_type": "a table",
}
_BOUNDS = {
    "greater_than_equal": ("at least", "ge"),
    "greater_than": ("more than", "gt"),
    "less_than_equal": ("at most", "le"),
    "less_than": ("less than", "lt"),
}
_SHOWN = 60
"""The longest string that is shown as a whole."""
_GOOD_NAME = f"use letters, digits and . _ + -, beginning with a letter or a digit, {LONGEST} at most"


def check_shape(problems: Problems) -> ManifestTable:
    """The tables of a manifest, without the values that have errors; the errors are added to `problems`."""
    data: Any = copy.deepcopy(problems.file.data)
    while True:
        try:
            return ManifestTable.model_validate(data)
        except ValidationError as error:
            for detail in error.errors(include_url=False):
                path, of_name = _path(problems.file.data, detail["loc"])
                if not problems.is_broken(path):
                    _report(problems, path, detail, of_name=of_name)
                    # Elements are not removed one by one: the indices of the others must not change.
                    while isinstance(path[-1], int):
                        path = path[:-1]
                    problems.broken.add(path)
                    _remove(data, path)


def _path(data: Any, location: Sequence[str | int]) -> tuple[KeyPath, bool]:
    """The key path of pydantic's location, without the names of union members; and whether the error is in the name."""
    path: KeyPath = ()
    node = data
    for step in location:
        if step == "[key]":
            return path, True
        exists = step in node if isinstance(node, dict) else isinstance(node, list) and step in range(len(node))
        if exists:
            node = node[step]
            path = (*path, step)
    return path, False


def _remove(data: Any, path: KeyPath) -> None:
    for step in path[:-1]:
        data = data[step]
    del data[path[-1]]


def _report(problems: Problems, path: KeyPath, detail: ErrorDetails, *, of_name: bool) -> None:
    kind = detail["type"]
    value = detail["input"]
    key = str(path[-1])
    if of_name:
        problems.add(
            path,
            f"{spoken(key)} is not a good name",
            why="names become parts of file names and of task labels",
            fix=_GOOD_NAME,
        )
    elif kind == "extra_forbidden":
        problems.add(path, f"unknown key '{key}'", fix=_instead(path, value))
    elif kind == "literal_error":
        choices = [word.strip("'") for word in str(detail["ctx"]["expected"]).replace(" or ", ", ").split(", ")]
        fix = did_you_mean(value, choices) if isinstance(value, str) else None
        problems.add(path, f"must be one of {', '.join(choices)}, not {spoken(value)}", fix=fix)
    elif kind in _BOUNDS:
        words, name = _BOUNDS[kind]
        bound = detail["ctx"][name]
        near = f"write {key} = {bound:g}, or " if name in ("ge", "le") else ""
        problems.add(path, f"must be {words} {bound:g}, not {spoken(value)}", fix=f"{near}remove it for the default")
    elif kind == "value_error":
        what, *fixes = detail["ctx"]["error"].args
        problems.add(path, what, fix=fixes[0] if fixes else None)
    elif kind == "finite_number":
        problems.add(path, f"must be a finite number, not {value}", fix=f"write a number, or remove {key}")
    elif kind in ("string_pattern_mismatch", "string_too_long"):
        problems.add(path, f"{spoken(value)} is not a good name", fix=_GOOD_NAME)
    elif path[:1] == ("platforms",) and len(path) > 3 and path[2] == "device":
        problems.add(
            path, f"must be a string, a whole number, true or false, or a list of strings, not {spoken(value)}"
        )
    else:
        fix = fitting_table(path, value) or _as_expected(path, value, kind)
        problems.add(path, f"must be {_EXPECTED.get(kind, 'another value')}, not {spoken(value)}", fix=fix)


def _as_expected(path: KeyPath, value: Any, kind: str) -> str | None:
    """How a value of a wrong type is written as one of the right type; None where nothing shows what is meant."""
    key = path[-1]
    if isinstance(key, int):
        return (
            f'write "{value}", in quotation marks' if kind == "string_type" and isinstance(value, int | float) else None
        )
    written: str | None = None
    match kind, value:
        case "list_type", str() if len(value) <= _SHOWN:
            written = f"{key} = [{json.dumps(value, ensure_ascii=False)}]"
        case "list_type", dict():
            written = f"[[{dotted(path)}]]"
        case "string_type", bool() | int() | float():
            written = f'{key} = "{str(value).lower()}"'
        case "bool_type", _:
            written = f"{key} = true, or {key} = false"
        case (("int_type" | "float_type"), str()) if value.strip().isascii() and value.strip().isdigit():
            written = f"{key} = {value.strip()}, without quotation marks"
        case (("int_type" | "float_type"), _):
            written = f"a number, or remove {key}"
        case (("dict_type" | "model_type" | "model_attributes_type"), _) if all(isinstance(step, str) for step in path):
            written = f"a table: [{dotted(path)}]"
    return None if written is None else f"write {written}"


def _instead(path: KeyPath, value: Any) -> str:
    """What an unknown key was meant to be, or where it belongs."""
    key, known = str(path[-1]), keys_of(path[:-1])
    word = spelled(key)
    if word in known or SYNONYMS.get(word) in known:
        return f"did you mean '{word if word in known else SYNONYMS[word]}'?"
    near, elsewhere = did_you_mean(key, known), right_table(path, value)
    if elsewhere is None:
        return near or f"known keys here: {', '.join(known)}"
    return f"{near} ({elsewhere})" if near else elsewhere


def spoken(value: Any) -> str:
    """A TOML value in a sentence."""
    match value:
        case bool():
            text = "true" if value else "false"
        case str():
            text = f"'{value}'" if len(value) <= _SHOWN else f"'{value[: _SHOWN - 3]}…'"
        case float():
            text = f"{value:g}"
        case list():
            text = "a list"
        case dict():
            text = "a table"
        case datetime.date() | datetime.time():
            text = f"the date or time {value}"
        case _:
            text = str(value)
    return text
