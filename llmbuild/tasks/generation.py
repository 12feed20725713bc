"""Sampling values and token ids of mlc-chat-config.json: where each comes from, and what it may be."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from llmbuild.canonical import Json
from llmbuild.errors import InputError, Where

DEFAULTS: Mapping[str, Json] = {
    "temperature": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "repetition_penalty": 1.0,
    "top_p": 1.0,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": None,
}
"""MLC's, where neither the manifest nor the checkpoint sets a value; but an end token is never invented."""


@dataclass(frozen=True, slots=True)
class Range:
    """From `least` (or above it, where `above`) to `most`."""

    least: float
    most: float = math.inf
    above: bool = False

    def has(self, value: float) -> bool:
        return (value > self.least if self.above else value >= self.least) and value <= self.most

    def __str__(self) -> str:
        begin = f"more than {self.least:g}" if self.above else f"at least {self.least:g}"
        return begin if self.most == math.inf else f"{begin} and at most {self.most:g}"


RANGES: Mapping[str, Range] = {
    "temperature": Range(0),
    "top_p": Range(0, 1, above=True),
    "presence_penalty": Range(-2, 2),
    "frequency_penalty": Range(-2, 2),
    "repetition_penalty": Range(0, above=True),
}
"""The ranges of a manifest's [models.NAME.generation], which a checkpoint's values have as well."""

Place = tuple[Mapping[str, Any], str, Callable[[str], str] | None]
"""Values, the file of messages, and how a key is spelled (None: as in mlc-chat-config.json)."""


def choose(*places: Place) -> dict[str, Json]:
    """The sampling values and token ids that are set, each from the first place that has it.

    A null counts as absent, and so does a token id below 0.  Raises InputError for a value that cannot be meant.
    """
    chosen: dict[str, Json] = {}
    for values, file, spelling in reversed(places):
        for key, value in values.items():
            name = spelling(key) if spelling else key
            if name not in DEFAULTS or value is None:
                continue
            if not _valid(name, value):
                raise InputError(
                    f"must be {_expected(name)}, not {json.dumps(value, default=str):.80}", where=Where(file, key=key)
                )
            meant = _numbers(value) if name.endswith("_id") else value
            if meant is not None:
                chosen[name] = meant
    return chosen


def _valid(name: str, value: Any) -> bool:
    if name in RANGES:
        number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        return number and RANGES[name].has(value)
    if isinstance(value, list) and name == "eos_token_id":
        return bool(value) and all(map(_is_id, value))
    return _is_id(value)


def _is_id(value: Any) -> bool:
    """A token's number as runtimes store it; some files have -1 for none."""
    return isinstance(value, int) and not isinstance(value, bool) and -(1 << 31) <= value < 1 << 31


def _numbers(value: Json) -> Json:
    """A token's number, or several of them as they stand, without those below 0; None where none is left."""
    if isinstance(value, list):
        kept: list[Json] = [number for number in value if isinstance(number, int) and number >= 0]
        return kept or None
    return value if isinstance(value, int) and value >= 0 else None


def _expected(name: str) -> str:
    if name in RANGES:
        return f"a number, {RANGES[name]}"
    return "a token id or a list of token ids" if name == "eos_token_id" else "a token id"
