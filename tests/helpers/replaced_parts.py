"""A JSON value with one of its parts replaced by every kind of value that JSON has: what a wrong file may look like."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from typing import Any

OTHERS: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    10**299,
    0.5,
    math.nan,
    math.inf,
    "",
    "x",
    [],
    [5],
    [None],
    [["x"], 1],
    {},
    {"x": [1]},
    {"type": {}, "content": []},
)
"""One of each kind and size; json.dumps writes NaN and Infinity as Python reads them."""


def mutations(value: Any) -> Iterator[Any]:
    """The value with each part in turn (the whole as well) replaced by each of `OTHERS`, or left out of its object."""
    for path in _paths(value, ()):
        for other in OTHERS:
            yield _replaced(value, path, other)
        if path and isinstance(path[-1], str):
            changed = copy.deepcopy(value)
            del _at(changed, path[:-1])[path[-1]]
            yield changed


def _paths(value: Any, path: tuple[str | int, ...]) -> Iterator[tuple[str | int, ...]]:
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in inner:
        yield from _paths(part, (*path, key))


def _at(value: Any, path: Sequence[str | int]) -> Any:
    for key in path:
        value = value[key]
    return value


def _replaced(value: Any, path: tuple[str | int, ...], other: Any) -> Any:
    if not path:
        return other
    changed = copy.deepcopy(value)
    _at(changed, path[:-1])[path[-1]] = copy.deepcopy(other)
    return changed
