"""Comparing the output of another run of an action with the output that its trace records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from llmbuild.canonical import CHUNK, Json
from llmbuild.engine import fs
from llmbuild.engine.cas import Cas
from llmbuild.engine.tree import Tree


class Kind(Enum):
    """In what way a file of the second run differs."""

    CONTENT = "content"
    MODE = "mode"
    MISSING = "missing"
    EXTRA = "extra"


@dataclass(frozen=True, slots=True)
class FileDifference:
    """One file that is not the same.  `offset` is the first differing byte (where one file is the beginning of the
    other, the length of the shorter); `expected` and `actual` are sizes in bytes."""

    path: str
    kind: Kind
    offset: int | None = None
    expected: int | None = None
    actual: int | None = None

    def to_json(self) -> Mapping[str, Json]:
        return {
            "path": self.path,
            "kind": self.kind.value,
            "offset": self.offset,
            "expected-size": self.expected,
            "actual-size": self.actual,
        }

    def __str__(self) -> str:
        match self.kind:
            case Kind.MISSING:
                return f"{self.path}: was not made again"
            case Kind.EXTRA:
                return f"{self.path}: was made in addition"
            case Kind.MODE:
                return f"{self.path}: is executable only once"
            case Kind.CONTENT:
                sizes = (
                    f"{self.expected} bytes"
                    if self.expected == self.actual
                    else f"{self.expected} and {self.actual} bytes"
                )
                return f"{self.path}: differs from byte {self.offset} on ({sizes})"


def compare(cas: Cas, expected: Tree, actual: Tree) -> list[FileDifference]:
    """All differences between two output trees, by path.  Raises MissingBlobError when a blob of either is gone."""
    before, after = ({entry.path: entry for entry in tree.files} for tree in (expected, actual))
    found: list[FileDifference] = []
    for path in sorted(before.keys() | after.keys()):
        old, new = before.get(path), after.get(path)
        if new is None:
            found.append(FileDifference(path, Kind.MISSING))
        elif old is None:
            found.append(FileDifference(path, Kind.EXTRA))
        elif old.digest != new.digest:
            offset = first_difference(cas.path(old.digest), cas.path(new.digest))
            found.append(FileDifference(path, Kind.CONTENT, offset, old.size, new.size))
        elif old.executable != new.executable:
            found.append(FileDifference(path, Kind.MODE, None, old.size, new.size))
    return found


def first_difference(one: Path, other: Path) -> int:
    """The offset of the first byte that two different files do not share.  Raises StoreError."""
    offset = 0
    with fs.translate_errors("compare files", one), one.open("rb") as left, other.open("rb") as right:
        while True:
            a, b = left.read(CHUNK), right.read(CHUNK)
            if a != b or not a:
                break
            offset += len(a)
    # Halving finds the byte in a chunk without a step of Python for each byte.
    low, high = 0, min(len(a), len(b))
    if a[:high] == b[:high]:
        return offset + high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if a[low:middle] == b[low:middle] else (low, middle)
    return offset + low
