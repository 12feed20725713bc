"""Where a key of the manifest belongs that stands in a table that has no such key.  All of it follows from the schema."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_origin

from pydantic import ValidationError

from llmbuild.manifest.schema import TABLES, fits, keys_of
from llmbuild.manifest.schema_table import Table, kebab
from llmbuild.tomlfile import KeyPath, dotted

Pattern = tuple[str, ...]

SYNONYMS: Mapping[str, str] = {
    "model": "models",
    "quantization": "quantizations",
    "platform": "platforms",
    "template": "conv-template",
    "conversation-template": "conv-template",
    "path": "source",
    "device": "platforms",
    "targets": "platforms",
    "context-length": "context-window-size",
    "max-seq-len": "context-window-size",
    "sliding-window": "sliding-window-size",
    "tensor-parallel-shard": "tensor-parallel-shards",
}
"""A key of another tool, and its name here."""


def spelled(key: str) -> str:
    """A key as this manifest spells keys."""
    return kebab(key).lower()


def right_table(path: KeyPath, value: Any) -> str | None:
    """A sentence on the table that the key at a path belongs to, or None where no other table takes it.

    Of several tables it is one that takes the value, and of these the nearest: below the table at hand, else the one that has
    most of its path, else the one with the shortest path.
    """
    here, key = path[:-1], path[-1]
    word = spelled(str(key))
    # A singular has a table too, where it is rarely meant: what a [[build]] excludes.
    for name in dict.fromkeys((SYNONYMS.get(word, word), word)):
        places = _others(name, here)
        if places:
            taking, called = _taking(places, name, value), "" if name == key else f" as {name}"
            if not taking and name != key and (taking := _taking(places, name, [value])):
                called += ", a list"
            return f"'{key}' belongs {_place(taking or places, here, name)}{called}"
    return None


def fitting_table(path: KeyPath, value: Any) -> str | None:
    """The same for a key that the table at hand has, with a value of a type that another table has it with."""
    here, key = path[:-1], path[-1]
    places = _taking(_others(str(key), here), str(key), value)
    return f"'{key}' with such a value belongs {_place(places, here, str(key))}" if places else None


def _others(key: str, here: KeyPath) -> list[Pattern]:
    """The tables with a key, without the one at hand."""
    return [pattern for pattern in TABLES if key in keys_of(pattern) and not fits(pattern, here)]


def _taking(places: list[Pattern], key: str, value: Any) -> list[Pattern]:
    """The tables that take a value for a key."""
    return [pattern for pattern in places if _takes(TABLES[pattern], key, value)]


def _takes(table: type[Table], key: str, value: Any) -> bool:
    try:
        table.model_validate({key: value})
    except ValidationError:
        return False
    return True


def _shared(pattern: Pattern, path: KeyPath) -> int:
    """How many steps from the top a pattern and a path have in common."""
    count = 0
    for part, step in zip(pattern, path, strict=False):
        if part not in ("*", step):
            break
        count += 1
    return count


def _place(places: list[Pattern], here: KeyPath, key: str) -> str:
    """The nearest of some tables as it is written: in [models.NAME.generation], with the names of the path at hand where it
    shares them."""
    pattern = min(places, key=lambda pattern: (-_shared(pattern, here), len(pattern)))
    if not pattern:
        listed = get_origin(TABLES[()].model_fields[key.replace("-", "_")].annotation) is list
        written = f"[[{key}]]" if listed else f"[{key}.NAME]" if (key, "*") in TABLES else f"[{key}]"
        return f"to the top level, written {written}"
    shared = _shared(pattern, here)
    if pattern[0] == "build":
        inner = [part for part in pattern[1:] if part != "*"]
        return f"in {'.'.join(inner)} of [[build]]" if inner else "in [[build]]"
    names = [here[index] if index < shared else "NAME" if part == "*" else part for index, part in enumerate(pattern)]
    return f"in [{dotted(names)}]"
