"""The verification memo: which blobs were read and found right, so that unchanged ones are not hashed again.

One append-only text file, one line an entry: `digest inode size mtime_ns ctime_ns`.  An entry is valid as long as the file's
stat is still the same.  Processes append without a lock (one short `write` with O_APPEND); a line that is torn or lost costs
one more hash and nothing else.  Lines of small blobs are therefore written many at a time.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TypeAlias

from llmbuild.canonical import Digest, parse_digest
from llmbuild.engine import files, fs

Stamp: TypeAlias = tuple[int, int, int, int]
"""Inode, size in bytes, mtime and ctime in nanoseconds."""

_COMPACT_ABOVE = 4096
_AT_ONCE = 1 << 20
"""A blob of so many bytes is worth a line of its own: hashing it once more would cost much more than writing that."""
_TOGETHER = 64
"""How many lines of smaller blobs are written together; the last ones by `flush`."""


def stamp_of(status: os.stat_result) -> Stamp:
    return (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


class VerifiedMemo:
    """The memo of one store, shared by processes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._entries: dict[Digest, Stamp] = {}
        self._offset = 0
        self._lines = 0
        self._unwritten: list[str] = []

    def holds(self, digest: Digest, stamp: Stamp) -> bool:
        """Whether the blob was verified when its file had this stat; looks at what other processes added since."""
        if self._entries.get(digest) == stamp:
            return True
        self._read_more()
        return self._entries.get(digest) == stamp

    def record(self, digest: Digest, stamp: Stamp) -> None:
        """Remember that the blob's file has been verified; a failure to write costs only a later hash."""
        if self._entries.get(digest) == stamp:
            return
        self._entries[digest] = stamp
        self._unwritten.append(f"{digest} {' '.join(map(str, stamp))}\n")
        if stamp[1] >= _AT_ONCE or len(self._unwritten) >= _TOGETHER:
            self.flush()

    def flush(self) -> None:
        """Write what was recorded; a failure costs only later hashes."""
        # A line that another thread adds between these two steps is lost, which costs a hash.
        lines, self._unwritten = self._unwritten, []
        if lines:
            with contextlib.suppress(OSError):
                fs.current.append(self._path, "".join(lines).encode())

    def compact(self, scratch: Path) -> None:
        """Rewrite the file when most of its lines are outdated.  Entries added meanwhile by others may be lost."""
        self.flush()
        self._read_more()
        if self._lines > _COMPACT_ABOVE and self._lines > 3 * len(self._entries):
            lines = [f"{digest} {' '.join(map(str, stamp))}\n" for digest, stamp in self._entries.items()]
            files.write_atomic(self._path, "".join(lines).encode(), scratch=scratch)
            self._offset = 0
            self._lines = 0

    def _read_more(self) -> None:
        try:
            fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return
        try:
            end = os.fstat(fd).st_size
            if end < self._offset:
                # Another process compacted the file.
                self._offset = 0
                self._lines = 0
            if end == self._offset:
                return
            data = os.pread(fd, end - self._offset, self._offset)
        except OSError:
            # It is a directory, or the disk fails: all is hashed again.
            return
        finally:
            os.close(fd)
        complete = data.rfind(b"\n") + 1
        self._offset += complete
        for line in data[:complete].splitlines():
            self._lines += 1
            try:
                digest, inode, size, mtime, ctime = line.decode("ascii").split(" ")
                self._entries[parse_digest(digest)] = (int(inode), int(size), int(mtime), int(ctime))
            except ValueError:
                # A torn line.
                continue
