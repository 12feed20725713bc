"""Reading what another task wrote: a JSON object whose fields are checked, since caches are shared."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmbuild.errors import InputError, Where
from llmbuild.jsontext import parse_json


def read_fields(path: Path, types: Mapping[str, type]) -> dict[str, Any]:
    """The object in a file, in which each of `types` is there and has its type.

    Raises InputError that names the file, without its directory, and the field.
    """
    try:
        value = parse_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError("cannot be read", where=path.name, why=str(error)) from error
    if not isinstance(value, dict):
        raise InputError("is not a JSON object", where=path.name)
    for name, kind in types.items():
        if type(value.get(name)) is not kind:
            raise InputError(f"is missing or not of type {kind.__name__}", where=Where(path.name, key=name))
    return value
