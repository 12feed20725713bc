"""A file system that fails at a chosen operation, for tests that reach every point of a build."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Literal

from llmbuild.engine.fs import FileSystem


class Killed(BaseException):
    """Stands for the death of the process: nothing may catch it, and no operation works after it."""


Way = Literal["kill", "error", "short"]


class FaultyFs(FileSystem):
    """Counts operations; at number `at` it dies, fails with `number`, or writes half and then does so."""

    def __init__(self, at: int = -1, way: Way = "kill", number: int = 0) -> None:
        self.count = 0
        self._at = at
        self._way = way
        self._number = number
        self.dead = False
        self.fired = False

    def _step(self) -> bool:
        """Whether this operation is the one; raises when it must not happen at all."""
        if self.dead:
            raise Killed
        self.count += 1
        if self.count - 1 != self._at:
            return False
        self.fired = True
        return True

    def _fail(self) -> None:
        if self._way == "kill":
            self.dead = True
            raise Killed
        raise OSError(self._number, os.strerror(self._number))

    def create(self, path: Path) -> int:
        if self._step():
            self._fail()
        return super().create(path)

    def write(self, fd: int, data: bytes | memoryview) -> int:
        if self._step():
            half = bytes(data)[: max(1, len(data) // 2)] if len(data) else b""
            written = super().write(fd, half)
            if self._way == "short":
                return written
            self._fail()
        return super().write(fd, data)

    def fsync(self, fd: int) -> None:
        if self._step():
            self._fail()

    def append(self, path: Path, data: bytes) -> None:
        if self._step():
            super().append(path, data[: len(data) // 2])
            self._fail()
        super().append(path, data)

    def replace(self, source: Path, dest: Path) -> None:
        if self._step():
            self._fail()
        super().replace(source, dest)

    def exchange(self, one: Path, other: Path) -> None:
        if self._step():
            self._fail()
        super().exchange(one, other)

    def hard_link(self, source: Path, dest: Path) -> None:
        if self._step():
            self._fail()
        super().hard_link(source, dest)

    def symlink(self, source: Path, dest: Path) -> None:
        if self._step():
            self._fail()
        super().symlink(source, dest)

    def clone(self, source_fd: int, dest_fd: int) -> None:
        if self._step():
            self._fail()
        super().clone(source_fd, dest_fd)

    def chmod(self, path: Path, mode: int) -> None:
        if self._step():
            self._fail()
        super().chmod(path, mode)

    def mkdir(self, path: Path) -> None:
        if self._step():
            self._fail()
        super().mkdir(path)

    def unlink(self, path: Path) -> None:
        if self._step():
            self._fail()
        super().unlink(path)

    def rmdir(self, path: Path) -> None:
        if self._step():
            self._fail()
        super().rmdir(path)


class OtherDisk(FaultyFs):
    """A file system that shares no content with the store's, and cannot exchange names unless it is told to."""

    def __init__(
        self, at: int = -1, way: Way = "kill", number: int = 0, *, links: bool = False, exchanges: bool = False
    ) -> None:
        super().__init__(at, way, number)
        self._links = links
        self._exchanges = exchanges

    def clone(self, source_fd: int, dest_fd: int) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    def hard_link(self, source: Path, dest: Path) -> None:
        if not self._links:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        super().hard_link(source, dest)

    def exchange(self, one: Path, other: Path) -> None:
        if not self._exchanges:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        super().exchange(one, other)


class FullDisk(OtherDisk):
    """A disk with room for so many bytes; what is more is refused, after as much as fits was taken."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room

    def write(self, fd: int, data: bytes | memoryview) -> int:
        if data and self.room <= 0:
            self.fired = True
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        taken = super().write(fd, bytes(data)[: self.room])
        self.room -= taken
        return taken
