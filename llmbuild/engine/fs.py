"""The seam between the engine and the file system: every operation that changes a disk goes through `current`.

Tests put a subclass in place of `current` that fails, writes short or "dies" at a chosen operation, so that each point
of a build at which a machine can fail is reachable.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import sys
from collections.abc import Iterator
from typing import TypeAlias

from llmbuild.errors import StoreError

_FICLONE = 0x40049409
"""The ioctl that shares a file's extents with another one (linux/fs.h, `_IOW(0x94, 9, int)`)."""

CANNOT_SHARE = frozenset(
    {errno.EXDEV, errno.EMLINK, errno.EPERM, errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL, errno.ENOSYS, errno.EACCES}
)
"""Errors that mean `this file system does not link or clone here`, for which the next way is tried."""

CANNOT_EXCHANGE = frozenset({errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EXDEV, errno.EPERM, errno.EBUSY})
"""Errors that mean `two names cannot change places here`, for which the steps are taken one by one."""

StrPath: TypeAlias = "str | os.PathLike[str]"


class FileSystem:
    """The operations that change a disk.  They raise OSError as the system calls do.

    They are plain calls of `os`: a build does dozens of them a task, and `pathlib` costs more than many of them do.
    """

    def create(self, path: StrPath) -> int:
        """Create a file that must not exist yet and open it for writing; returns the descriptor."""
        return os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644)

    def write(self, fd: int, data: bytes | memoryview) -> int:
        """Write some of `data`; returns how many bytes were taken, which may be fewer than given."""
        return os.write(fd, data)

    def fsync(self, fd: int) -> None:
        os.fsync(fd)

    def append(self, path: StrPath, data: bytes) -> None:
        """Add `data` at the end of a file in one system call, so that appends of several processes do not mix.

        A link in its place is not followed: only the last part of the path is the file's own name."""
        fd = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            os.write(fd, data)
        finally:
            os.close(fd)

    def replace(self, source: StrPath, dest: StrPath) -> None:
        os.replace(source, dest)  # noqa: PTH105

    def exchange(self, one: StrPath, other: StrPath) -> None:
        """Let two names change places in one step; the error is one of CANNOT_EXCHANGE where that is not to be had."""
        # ctypes is for the few builds that exchange directories.
        from llmbuild.engine.exchange import exchange_names

        exchange_names(os.fspath(one), os.fspath(other))

    def hard_link(self, source: StrPath, dest: StrPath) -> None:
        os.link(source, dest)

    def symlink(self, source: StrPath, dest: StrPath) -> None:
        os.symlink(source, dest)  # noqa: PTH211

    def clone(self, source_fd: int, dest_fd: int) -> None:
        """Make an empty file share the extents of another one (a reflink)."""
        if not sys.platform.startswith("linux"):
            raise OSError(errno.EOPNOTSUPP, "no reflinks on this system")
        fcntl.ioctl(dest_fd, _FICLONE, source_fd)

    def chmod(self, path: StrPath, mode: int) -> None:
        os.chmod(path, mode)  # noqa: PTH101

    def mkdir(self, path: StrPath) -> None:
        """Create a directory and its parents; an existing one is fine."""
        os.makedirs(path, exist_ok=True)  # noqa: PTH103

    def unlink(self, path: StrPath) -> None:
        """Remove a file; a missing one is fine."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)  # noqa: PTH108

    def rmdir(self, path: StrPath) -> None:
        os.rmdir(path)  # noqa: PTH106

    def touch(self, path: StrPath) -> None:
        """Set a file's modification time to now; of a link its own."""
        os.utime(path, follow_symlinks=False)


current: FileSystem = FileSystem()
"""The file system in use.  Read it as `fs.current` at each call, never by `from … import current`."""


_ROOM = "free some space, or {elsewhere}"
_WRITABLE = "make the directory writable, or {elsewhere}"
_ADVICE: dict[int, tuple[str, str]] = {
    errno.ENOSPC: ("the disk is full", _ROOM),
    errno.EDQUOT: ("the disk quota is used up", _ROOM),
    errno.EACCES: ("permission denied", _WRITABLE),
    errno.EPERM: ("operation not permitted", _WRITABLE),
    errno.EROFS: ("the file system is read-only", "{elsewhere}"),
    errno.EIO: ("the disk reports an input/output error", "check the disk; nothing that was written before is lost"),
    errno.ENOTDIR: ("a part of the path is not a directory", "move the file that is in the way"),
    errno.EISDIR: ("a directory is where a file should be", "move the directory that is in the way"),
    errno.EEXIST: ("a file is where a directory should be", "move the file that is in the way"),
    errno.ENOENT: ("a part of the path is missing", "make that directory; a link on the way may lead nowhere"),
    errno.ELOOP: ("symbolic links on the way lead in a circle", "remove the links"),
    errno.ENAMETOOLONG: ("the name is too long", "{elsewhere}, with a shorter path"),
}

CACHE = "put the cache on another disk with LLMBUILD_CACHE"
OUTPUT = "choose another output directory"
PROJECT = "move the project to another disk"
"""Where else blobs, results and the project's own files can go, in the advice of errors."""


def store_error(error: OSError, doing: str, where: StrPath, elsewhere: str = CACHE) -> StoreError:
    """The user's view of a failed file operation; `doing` completes `cannot …`, `elsewhere` names the setting that chooses
    another place."""
    why, fix = _ADVICE.get(error.errno or 0, (error.strerror or str(error), None))
    return StoreError(
        f"cannot {doing}", where=os.fspath(where), why=why, fix=None if fix is None else fix.format(elsewhere=elsewhere)
    )


@contextlib.contextmanager
def translate_errors(doing: str, where: StrPath, elsewhere: str = CACHE) -> Iterator[None]:
    """Turn an OSError of the body into a StoreError that names what could not be done, where, why and what helps."""
    try:
        yield
    except OSError as error:
        raise store_error(error, doing, where, elsewhere) from error
