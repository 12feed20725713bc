"""A file that stays where its owner has it: read in pieces, each of which is verified against its recorded digest.

The first reader hashes the whole file once, from start to end: its SHA-256 and those of its pieces come from the same bytes.  A
later reader of a part hashes the bytes that it read, piece by piece, before they are used.  So the bytes used are the bytes
hashed, whatever happens to the file meanwhile, and nothing is read twice for that.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any, TypeAlias

from llmbuild.canonical import Digest, finish_digest
from llmbuild.errors import FetchError

PIECE = 1 << 20
"""Bytes of a piece.  A part of one costs reading all of it, and its digest costs 32 bytes."""

DIGEST_BYTES = 32


@dataclass(frozen=True, slots=True)
class Pieces:
    """A file's recorded content: `path` is where its owner has it, `digests` the SHA-256 of its pieces one after the other."""

    path: Path
    digest: Digest
    size: int
    digests: bytes

    def length(self, index: int) -> int:
        """The bytes of a piece."""
        return min(PIECE, self.size - index * PIECE)

    def check(self, index: int, data: bytes | bytearray | memoryview) -> None:
        """Raise ChangedError unless these are the bytes of a piece."""
        known = self.digests[index * DIGEST_BYTES : (index + 1) * DIGEST_BYTES]
        if hashlib.sha256(data).digest() != known:
            start = index * PIECE
            raise self.changed(f"bytes {start} to {start + len(data)} are not what they were")

    def changed(self, why: str) -> ChangedError:
        return ChangedError(self.path, self.digest, why)


class PiecesReader(io.RawIOBase):
    """The whole file from start to end.  Reading raises ChangedError when the content has changed, else OSError.

    Its own digest is verified too: a record may have another file's pieces.
    """

    def __init__(self, pieces: Pieces) -> None:
        self._pieces = pieces
        self._file = pieces.path.open("rb", buffering=0)
        self._index = 0
        self._whole = hashlib.sha256()
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._rest and (length := self._pieces.length(self._index)) > 0:
            data = bytearray()
            while len(data) < length and (part := self._file.read(length - len(data))):
                data += part
            self._pieces.check(self._index, data)
            self._index += 1
            self._whole.update(data)
            # The last piece is yielded only when the digest of all of them matches.
            if (
                not self._pieces.length(self._index) > 0
                and (found := finish_digest(self._whole)) != self._pieces.digest
            ):
                raise self._pieces.changed(f"its SHA-256 was {self._pieces.digest}, now it is {found}")
            self._rest = memoryview(data)
        into = memoryview(buffer).cast("B")
        count = min(len(into), len(self._rest))
        into[:count], self._rest = self._rest[:count], self._rest[count:]
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


Checks: TypeAlias = Mapping[Path, Pieces]
"""The files among a task's inputs that are not the store's own, by the paths under which the task reads them."""

NO_CHECKS: Checks = MappingProxyType({})


class ChangedError(FetchError):
    """A file of the user has changed since the build hashed it.  `digest` is the recorded one."""

    def __init__(self, path: Path, digest: Digest, why: str) -> None:
        super().__init__("changed while the build was running", where=str(path), why=why, fix="run the build again")
        self.path = path
        self.digest = digest


def digest_pieces(file: IO[bytes], add: Callable[[int], None]) -> tuple[Digest, int, bytes]:
    """The SHA-256 of a file from here on, its size, and the digests of its pieces.  Raises OSError."""
    whole, size, digests = hashlib.sha256(), 0, bytearray()
    buffer = bytearray(PIECE)
    view = memoryview(buffer)
    while True:
        filled = 0
        while filled < PIECE and (count := file.readinto(view[filled:])):  # type: ignore[attr-defined]
            filled += count
        if not filled:
            return finish_digest(whole), size, bytes(digests)
        whole.update(view[:filled])
        digests += hashlib.sha256(view[:filled]).digest()
        size += filled
        add(filled)
