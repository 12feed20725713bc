"""JSON from outside: bounded in size and depth, with a one-sentence error when it is malformed.

Python's parser accepts any depth until its stack ends, lone surrogates that no file can store, NaN, and a name twice.  JSON
from a cache, a server, a checkpoint or a repository is parsed here instead.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from functools import cache
from typing import Any

MOST_DEPTH = 64
"""No record and no file of a checkpoint is nested half as deep."""

MOST_BYTES = 16 << 20
"""The limit for everything but vocabularies, which have limits of their own."""

MOST_VALUES = 600_000
"""Numbers, strings, lists and objects of one text.  A value takes Python up to 250 bytes, whatever it takes in the text, so
that this limit and not the text's size keeps memory below ten times `MOST_BYTES`."""

MOST_DIGITS = 300
"""A longer integer is larger than any float, and the conversion of very long ones takes too long."""

_OPENS = (b"[", b"{")
_BORDERS = (b"[", b"{", b",")
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_ALL_DIGITS_ZERO = bytes.maketrans(b"123456789", b"0" * 9)


def parse_json(
    data: bytes,
    *,
    most_bytes: int = MOST_BYTES,
    most_values: int = MOST_VALUES,
    most_depth: int = MOST_DEPTH,
    numbers: bool = False,
    unique: bool = False,
) -> Any:
    """The value of a JSON text in UTF-8.

    Raises ValueError, with one sentence, for everything else: another encoding, more than `most_bytes` bytes, `most_values`
    values or `most_depth` levels, a string with a lone surrogate, a number of hundreds of digits, (without `numbers`, which
    lets them pass as floats) NaN and the infinities, and (with `unique`) a name that an object has twice.
    """
    if len(data) > most_bytes:
        raise ValueError(f"it has {len(data)} bytes, and {most_bytes} are the most")
    # Counted before it is parsed, and a little too high: a comma in a string counts as well.
    if len(data) > most_values and sum(map(data.count, _BORDERS)) > most_values:
        raise ValueError(f"it has more than {most_values} values")
    try:
        # Python converts integers by itself where none can be too long: a call for each would take half of the time.
        long = b"0" * MOST_DIGITS in data.translate(_ALL_DIGITS_ZERO)
        value = _decode(numbers, unique, long)(data.decode("utf-8"))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    # A text with fewer brackets than levels are allowed needs no walk.
    if sum(map(data.count, _OPENS)) > most_depth and _deeper(value, most_depth):
        raise ValueError("it is nested too deeply")
    if _SURROGATE.search(data):
        require_text(value)
    return value


@cache
def _decode(numbers: bool, unique: bool, long: bool) -> Callable[[str], Any]:
    # A null build parses thousands of records, and making a decoder takes as long as parsing one of them.
    return json.JSONDecoder(
        parse_int=_integer if long else None,
        parse_float=None if numbers else _finite,
        parse_constant=None if numbers else _no_constant,
        object_pairs_hook=_without_repetition if unique else None,
    ).decode


def require_text(value: Any) -> None:
    """Raise ValueError when a string in a JSON value (a name included) cannot be encoded as UTF-8."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ValueError("a string in it has half of a surrogate pair, which is no text") from None


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def _integer(text: str) -> int:
    if len(text) > MOST_DIGITS:
        raise ValueError(f"a number in it has {len(text)} digits")
    return int(text)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("a number in it is too large")
    return value


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise ValueError(f"it names {name[:200]!r} twice")
            seen.add(name)
    return result


def _deeper(value: Any, most: int) -> bool:
    """Whether a value has more than `most` levels, without a stack of its own depth."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(most):
        level = [
            item
            for one in level
            for item in (one.values() if isinstance(one, dict) else one)
            if isinstance(item, dict | list)
        ]
    return bool(level)
