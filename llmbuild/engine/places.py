"""Large files that are not copied into the store: where their owner has them, and what they were.

`in-place/ab/cdef…` stands beside the blobs for the bytes with that digest: a line of JSON (path, size, the file's stat, the
digest of the rest) and the digests of the file's pieces.  It is a promise and no blob: the file may change without notice.  So
a result counts as present while the promise is, but its bytes are used only by tasks that verify all they read against the
pieces (`llmbuild.checkpoints.pieces`), or copied and hashed.  Where the file is not as it was, the bytes are missing: what
makes them runs again.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from llmbuild.canonical import Digest, canonical_json, digest_bytes, known_digest
from llmbuild.engine import files, fs, records
from llmbuild.engine.verified import Stamp, stamp_of

if TYPE_CHECKING:
    from llmbuild.checkpoints.pieces import Pieces

_HEADER = 16 << 10
"""Longer than the line of any path."""
_MOST_PIECES = 256 << 20
"""The digests of the pieces of 8 TiB; a record that needs more is none."""
_FIELDS = frozenset({"path", "stamp", "pieces"})


class Place:
    """A parsed record.  Raises ValueError for an invalid one; the pieces are checked when they are looked up."""

    def __init__(self, data: bytes) -> None:
        line, end, self._rest = data.partition(b"\n")
        value = records.json_object(line)
        stamp = value.get("stamp")
        if not end or value.keys() != _FIELDS or not isinstance(stamp, list) or len(stamp) != 4:
            raise ValueError("it has another form")
        inode, size, mtime, ctime = stamp
        # Times before 1970 are less than zero.
        if not all(type(number) is int for number in stamp):
            raise ValueError("a number in it is none")
        self.stamp: Stamp = (inode, records.count(size, "the size"), mtime, ctime)
        self.path = Path(records.text(value["path"], "the path"))
        self._pieces = known_digest(value["pieces"])
        self._header = len(line) + 1
        if not self.path.is_absolute():
            raise ValueError("its path is not absolute")

    @property
    def size(self) -> int:
        return self.stamp[1]

    def stands(self) -> bool:
        """Whether the file is there, can be read, and has the stat that it had."""
        try:
            status = self.path.stat()
        except OSError:
            return False
        return stat.S_ISREG(status.st_mode) and stamp_of(status) == self.stamp and os.access(self.path, os.R_OK)

    @property
    def length(self) -> int:
        """The size of the whole record in bytes."""
        from llmbuild.checkpoints.pieces import DIGEST_BYTES, PIECE

        return self._header + -(-self.size // PIECE) * DIGEST_BYTES

    def pieces(self, digest: Digest) -> Pieces:
        """The digests of the file's pieces.  Raises ValueError when they are damaged."""
        from llmbuild.checkpoints.pieces import Pieces

        if self._header + len(self._rest) != self.length or digest_bytes(self._rest) != self._pieces:
            raise ValueError("the digests of its pieces are damaged")
        return Pieces(self.path, digest, self.size, self._rest)


def read_place(path: Path) -> Place:
    """The record in a file.  Raises OSError when it cannot be read, ValueError when it is none.

    No more is read than a record has: whoever shares the store may have put something without end there.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with open(fd, "rb") as file:  # noqa: PTH123
        data = file.read(_HEADER) or b""
        rest = Place(data).length - len(data)
        if rest > _MOST_PIECES:
            raise ValueError("it is of a larger file than any")
        return Place(data + file.read(max(rest, 0) + 1))


class Places:
    """The records of one store, in the directory `root`."""

    def __init__(self, root: Path, scratch: Callable[[], Path]) -> None:
        self.root = root
        self._scratch = scratch

    def record_path(self, digest: Digest) -> Path:
        return self.root / digest[:2] / digest[2:]

    def promises(self, digest: Digest, size: int) -> bool:
        """Whether there is a record for these bytes; their owner may have changed the file since."""
        place = self._header(digest)
        return place is not None and place.size == size

    def stands(self, digest: Digest) -> bool:
        """Whether there is a record for these bytes whose file has the stat that it had."""
        place = self._header(digest)
        return place is not None and place.stands()

    def path(self, digest: Digest) -> Path | None:
        """The file that a record for these bytes names, however it is now."""
        place = self._header(digest)
        return None if place is None else place.path

    def _header(self, digest: Digest) -> Place | None:
        try:
            fd = os.open(self.record_path(digest), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            return None
        try:
            return Place(os.read(fd, _HEADER))
        except (OSError, ValueError):
            return None
        finally:
            os.close(fd)

    def find(self, digest: Digest) -> Pieces | None:
        """The file with these bytes where it has the stat that it had; None where there is none."""
        try:
            place = read_place(self.record_path(digest))
            return place.pieces(digest) if place.stands() else None
        except (OSError, ValueError):
            return None

    def put(self, pieces: Pieces, stamp: Stamp) -> None:
        """Record where the bytes are.  Raises StoreError."""
        line = canonical_json({"path": str(pieces.path), "stamp": list(stamp), "pieces": digest_bytes(pieces.digests)})
        data = line + b"\n" + pieces.digests
        files.write_atomic(self.record_path(pieces.digest), data, mode=0o444, scratch=self._scratch())

    def drop(self, digest: Digest) -> None:
        """Remove the record of where the bytes are; a failure is ignored."""
        with contextlib.suppress(OSError):
            files.remove_tree(self.record_path(digest), self.root)

    def all(self) -> Iterator[tuple[Digest, Path]]:
        """Every record with its file, sorted."""
        for path in sorted(self.root.glob("??/*")):
            digest = known_digest(path.parent.name + path.name)
            if digest is not None:
                yield digest, path


def _recordable(path: Path) -> bool:
    try:
        records.text(str(path), "the path")
    except ValueError:
        return False
    return True


class Keeper:
    """Takes large files of the user into the output of a task: shared by a reflink where the file system can, which no later
    change reaches, else left where they are.  Never by a hard link, whose content changes with the user's file."""

    def __init__(self, out: Path) -> None:
        self._out = out
        self.kept: dict[str, tuple[Pieces, Stamp]] = {}
        """What was left in place, by name in the output."""

    def __call__(self, path: Path, name: str, add: Callable[[int], None]) -> Digest:
        """Take a file in under a name; returns its SHA-256.  Raises OSError when it cannot be read, StoreError when the
        output cannot be written."""
        from llmbuild.checkpoints.pieces import Pieces, digest_pieces

        path = path.absolute()
        with path.open("rb", buffering=0) as file:
            clone = self._clone(file.fileno(), self._out / name)
            if clone is None and not _recordable(path):
                # A name that no record can contain.
                with fs.translate_errors("store a file", self._out / name):
                    digest, size = files.copy_hashed(path, self._out / name)
                add(size)
                return digest
            before = stamp_of(os.fstat(file.fileno()))
            if clone is None:
                digest, size, digests = digest_pieces(file, add)
                # A file that was written to meanwhile has another stat by now than the one that is recorded.
                self.kept[name] = Pieces(path, digest, size, digests), before
                return digest
        with clone.open("rb", buffering=0) as file:
            return digest_pieces(file, add)[0]

    @staticmethod
    def _clone(source: int, dest: Path) -> Path | None:
        """The new file `dest` that shares the bytes of another one, or None where that is not possible."""
        with fs.translate_errors("store a file", dest):
            out = fs.current.create(dest)
            try:
                fs.current.clone(source, out)
            except OSError as error:
                files.discard(dest)
                if error.errno not in fs.CANNOT_SHARE:
                    raise
                return None
            finally:
                os.close(out)
        return dest
