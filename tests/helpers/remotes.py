"""Caches of tests: in memory, and one that does everything wrong that a cache can."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from llmbuild.canonical import Digest
from llmbuild.engine.remote import Blobs, Remote, Results
from llmbuild.engine.sharing import Sharing


class MemoryBlobs(Blobs):
    """Keeps blobs in a dictionary; `faults` answer for those that they name."""

    def __init__(self, faults: Mapping[str, Callable[[bytes], Iterable[bytes]]]) -> None:
        self.data: dict[Digest, bytes] = {}
        self.faults = dict(faults)
        self.asked: list[Digest] = []

    def has(self, digest: Digest) -> bool:
        return digest in self.data

    def get(self, digest: Digest) -> Iterable[bytes]:
        self.asked.append(digest)
        if digest in self.faults:
            return self.faults[digest](self.data[digest])
        if digest not in self.data:
            raise FileNotFoundError(digest)
        return pieces(self.data[digest])

    def put(self, digest: Digest, file: Path) -> None:
        self.data[digest] = file.read_bytes()


class MemoryResults(Results):
    """Keeps records in a dictionary; what `lie` makes of one is what is got."""

    def __init__(self, lie: Callable[[bytes], object]) -> None:
        self.data: dict[Digest, bytes] = {}
        self.lie = lie

    def get(self, action: Digest) -> bytes | None:
        record = self.data.get(action)
        return None if record is None else self.lie(record)  # type: ignore[return-value]

    def put(self, action: Digest, record: bytes) -> None:
        self.data[action] = record


class MemoryRemote:
    """A cache in memory, open or to be opened by `sharing`."""

    def __init__(self) -> None:
        self.blobs = MemoryBlobs({})
        self.results = MemoryResults(lambda record: record)
        self.opened = 0

    def open(self) -> Remote:
        self.opened += 1
        return Remote(self.blobs, self.results)

    def sharing(self, *, write: bool = True) -> Sharing:
        return Sharing("memory", self.open, write=write)


def pieces(data: bytes, size: int = 3) -> Iterator[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))


def _raise(_data: bytes) -> Iterable[bytes]:
    raise ConnectionResetError("the peer went away")


def _raise_late(data: bytes) -> Iterator[bytes]:
    yield data[:1]
    raise TimeoutError("no answer")


def _missing_late(_data: bytes) -> Iterator[bytes]:
    raise FileNotFoundError("it was there a moment ago")
    yield b""


def _flipped(data: bytes) -> bytes:
    return bytes([data[0] ^ 1]) + data[1:]


FAULTS: Mapping[str, Callable[[bytes], Iterable[bytes]]] = {
    "truncated": lambda data: pieces(data[:-1]),
    "nothing": lambda _data: (),
    "flipped": lambda data: pieces(_flipped(data)),
    "oversized": lambda data: pieces(data + b"x"),
    "endless": lambda _data: itertools.repeat(b"endless" * 10_000),
    "empty pieces": lambda _data: itertools.repeat(b""),
    "one piece": lambda data: [data],
    "raises": _raise,
    "raises late": _raise_late,
    "missing": _missing_late,
    "no bytes": lambda _data: ["text"],  # type: ignore[list-item]
    "a number": lambda _data: 7,  # type: ignore[arg-type, return-value]
}
"""By name: what a blob's bytes become on the way.  `one piece` is no fault."""

HARMLESS = frozenset({"one piece"})
QUIET = frozenset({"missing"})
"""Nothing is wrong with a cache that no longer has something."""
