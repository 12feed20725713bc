"""The content of CUDA's fat binaries: the form in which one library contains code for several architectures.

A fat binary is a header (magic, version, size of the header, size of the rest) and entries, each with a header of its
own: kind (1 PTX, 2 machine code), size of its header, size of its data, at byte 28 the architecture and at byte 40 flags,
of which two bits distinguish sm_90a and sm_100f from sm_90 and sm_100.  NVIDIA does not document it; this description was
derived from the output of nvcc 13.0, for ten architectures.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

MAGIC = struct.pack("<I", 0xBA55ED50)

_KINDS = {1: "ptx", 2: "cubin"}
_SUFFIXES = {0: "", 1 << 20: "a", 1 << 21: "f"}


@dataclass(frozen=True, slots=True)
class Entry:
    """Code for one architecture: `kind` is "cubin" (machine code for `sm_80`) or "ptx" (for it and every later one)."""

    kind: str
    arch: str
    size: int


def number_of(arch: str) -> int:
    """The number of an architecture, without what may stand around it: 90 of sm_90a."""
    return int(re.sub(r"\D", "", arch))


def entries(data: bytes) -> list[Entry]:
    """The entries of every fat binary that is found in some bytes (an object file, a library)."""
    found: list[Entry] = []
    start = data.find(MAGIC)
    while start >= 0:
        inside = list(_entries_at(data, start))
        found += inside
        start = data.find(MAGIC, start + (16 if inside else 4))
    return found


def _entries_at(data: bytes, start: int) -> Iterator[Entry]:
    if start + 16 > len(data):
        return
    version, header, size = struct.unpack_from("<HHQ", data, start + 4)
    at, end = start + header, start + header + size
    if version != 1 or header < 16 or end > len(data):
        return
    while at + 64 <= end:
        kind, _, entry_header, entry_size = struct.unpack_from("<HHIQ", data, at)
        if kind not in _KINDS or entry_header < 64 or at + entry_header + entry_size > end:
            return
        (number,) = struct.unpack_from("<I", data, at + 28)
        (flags,) = struct.unpack_from("<Q", data, at + 40)
        suffix = _SUFFIXES[flags & sum(_SUFFIXES)]
        yield Entry(_KINDS[kind], f"sm_{number}{suffix}", entry_size)
        at += entry_header + entry_size
