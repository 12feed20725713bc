"""Where a key of the manifest belongs that stands in a table that has no such key.  All of it follows from the schema."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_origin

from pydantic import ValidationError

from llmbuild.manifest.schema import TABLES, keys_of
from llmbuild.manifest.schema_table import Table
from llmbuild.tomlfile import KeyPath, dotted

Pattern = tuple[str, ...]

SYNONYMS: Mapping[str, str] = {
    "quantization": "quantizations",
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


def kebab(key: str) -> str:
    """A key as this manifest spells keys."""
    return key.replace("_", "-").lower()


def right_table(path: KeyPath, value: Any) -> str | None:
    """A sentence on the table that the key at a path belongs to, or None where no other table takes it.

    Of several tables it is one that takes the value, and of these the nearest: below the table at hand, else the one that has
    most of its path, else the one with the shortest path.
    """
    *here, key = path
    word = kebab(str(key))
    for name in dict.fromkeys((word, SYNONYMS.get(word, word))):
        places = [pattern for pattern in TABLES if name in keys_of(pattern) and not _fits(pattern, here)]
        if places:
            fit = [pattern for pattern in places if _takes(TABLES[pattern], name, value)]
            nearest = min(fit or places, key=lambda pattern: (-_shared(pattern, here), len(pattern)))
            called = "" if name == key else f" as {name}"
            return f"'{key}' belongs {_place(nearest, here, name)}{called}"
    return None


def fitting_table(path: KeyPath, value: Any) -> str | None:
    """The same for a key that the table at hand has, with a value of a type that another table has it with."""
    *here, key = path
    places = [
        pattern
        for pattern, table in TABLES.items()
        if key in keys_of(pattern) and not _fits(pattern, here) and _takes(table, str(key), value)
    ]
    if not places:
        return None
    nearest = min(places, key=lambda pattern: (-_shared(pattern, here), len(pattern)))
    return f"'{key}' with such a value belongs {_place(nearest, here, str(key))}"


def _takes(table: type[Table], key: str, value: Any) -> bool:
    try:
        table.model_validate({key: value})
    except ValidationError:
        return False
    return True


def _fits(pattern: Pattern, path: KeyPath | list[str | int]) -> bool:
    return len(pattern) == len(path) and _shared(pattern, path) == len(path)


def _shared(pattern: Pattern, path: KeyPath | list[str | int]) -> int:
    """How many steps from the top a pattern and a path have in common."""
    count = 0
    for part, step in zip(pattern, path, strict=False):
        if part not in ("*", step):
            break
        count += 1
    return count


def _place(pattern: Pattern, here: KeyPath | list[str | int], key: str) -> str:
    """A table as it is written: in [models.NAME.generation], with the names of the path at hand where it shares them."""
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
