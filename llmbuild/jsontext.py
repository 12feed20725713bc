"""JSON from outside: bounded in size and depth, and always one sentence when it is not what it should be.

Python's parser takes any depth until its stack ends, lone surrogates that no file can hold, NaN, and a name twice.  What a
cache, a server, a checkpoint or a repository hands over goes through here instead.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

MOST_DEPTH = 64
"""No record and no file of a checkpoint is nested half as deep."""

MOST_BYTES = 16 << 20
"""The limit for everything but vocabularies, which have limits of their own."""

_OPENS = (b"[", b"{")
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def parse_json(
    data: bytes, *, most_bytes: int = MOST_BYTES, most_depth: int = MOST_DEPTH, numbers: bool = False
) -> Any:
    """The value of a JSON text in UTF-8.

    Raises ValueError, with one sentence, for everything else: another encoding, more than `most_bytes` bytes, more than
    `most_depth` levels, a string with a lone surrogate, a number of thousands of digits, and (without `numbers`, which
    lets them pass as floats) NaN and the infinities.
    """
    if len(data) > most_bytes:
        raise ValueError(f"it has {len(data)} bytes, and {most_bytes} are the most")
    try:
        value = json.loads(data.decode("utf-8"), parse_constant=None if numbers else _no_constant)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    # A text with fewer brackets than levels are allowed needs no walk.
    if sum(map(data.count, _OPENS)) > most_depth and _deeper(value, most_depth):
        raise ValueError("it is nested too deeply")
    if _SURROGATE.search(data):
        require_text(value)
    return value


def require_text(value: Any) -> None:
    """Raise ValueError when a string in a JSON value (a name included) is none that UTF-8 can hold."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ValueError("a string in it has half of a surrogate pair, which is no text") from None


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def _deeper(value: Any, most: int) -> bool:
    """Whether a value has more than `most` levels, without a stack of its own depth."""
    level = [value]
    for _ in range(most):
        level = [item for one in level for item in _items(one)]
    return any(isinstance(one, Mapping | list) for one in level)


def _items(value: Any) -> Sequence[Any]:
    if isinstance(value, Mapping):
        return list(value.values())
    return value if isinstance(value, list) else ()
