"""JSON values that are immutable and have a hash: the old and new values of reasons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from llmbuild.canonical import Json, canonical_json


class FrozenDict(dict[str, Any]):
    """A JSON object with frozen values; json and dataclasses take it for the dictionary that it is."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(frozenset(self.items()))

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise TypeError("a frozen JSON object does not change")

    __setitem__ = __delitem__ = __ior__ = update = pop = popitem = clear = setdefault = _refuse


def freeze(value: Json) -> Json:
    """The value with tuples for lists and frozen objects; equal values have equal hashes."""
    if isinstance(value, Mapping):
        return FrozenDict((name, freeze(item)) for name, item in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return tuple(freeze(item) for item in value)
    return value


def same(one: Json, other: Json) -> bool:
    """Whether two values have the same canonical form: 1, 1.0 and true are three values, at any depth."""
    if isinstance(one, str) or isinstance(other, str):
        return one == other
    return one == other and canonical_json(one) == canonical_json(other)
