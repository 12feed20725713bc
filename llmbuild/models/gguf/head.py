"""The beginning of a GGUF file: which architecture it names, known before gigabytes of tensors are fetched.

Writers put `general.architecture` first, and a vocabulary of megabytes behind it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

from llmbuild.errors import InputError
from llmbuild.models.architecture import DecoderFamily
from llmbuild.models.gguf.known import require_architecture

_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_STRING = 8
_MOST_PAIRS = 1 << 14


def check_head(head: bytes, known: DecoderFamily | None = None) -> None:
    """Raise InputError where the beginning of a file shows that it is no GGUF file, or one of an architecture that is not
    supported; what is not seen in it yet is for whoever has the whole file."""
    if len(head) >= 4 and not head.startswith(b"GGUF"):
        raise InputError("not a GGUF file", why="it does not begin with the letters GGUF")
    for key, value in _texts(head):
        if key == b"general.architecture":
            name = value.decode("utf-8", "replace")
            if known is None or known.gguf is None or name not in known.gguf.names:
                require_architecture({"general.architecture": name}, None)
            return


def _texts(head: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The pairs of metadata up to the first array or the end of the head whose values are texts."""
    try:
        pairs = min(_number("<Q", head, 16), _MOST_PAIRS)
        at = 24
        for _ in range(pairs):
            key, at = _string(head, at)
            kind = _number("<I", head, at)
            at += 4
            if kind == _STRING:
                value, at = _string(head, at)
                yield key, value
            elif kind in _SIZES:
                at += _SIZES[kind]
            else:
                return
    except (struct.error, IndexError):
        return


def _number(code: str, head: bytes, at: int) -> Any:
    return struct.unpack_from(code, head, at)[0]


def _string(head: bytes, at: int) -> tuple[bytes, int]:
    """A text at a place, and the place behind it.  Raises IndexError where the head ends before it."""
    end = at + 8 + _number("<Q", head, at)
    if end > len(head):
        raise IndexError(end)
    return head[at + 8 : end], end
