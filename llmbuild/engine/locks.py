"""Locks between processes that die with their owner.

A lock is `flock` on an open file.  The kernel gives it up when the last descriptor closes, however the owner ends, so no lock
is ever stale.  The file's content names the holder to others; nothing is decided by that content.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from llmbuild.engine import fs
from llmbuild.errors import StoreError
from llmbuild.jsontext import parse_json

_MOST_RECORD = 4096
"""Bytes that the record of an owner never exceeds."""


@dataclass(frozen=True, slots=True)
class Owner:
    """Who holds a lock: a process on this machine and the label of the task it works on."""

    pid: int
    label: str


@contextlib.contextmanager
def guard(path: Path, *, exclusive: bool) -> Iterator[None]:
    """Hold a lock that many share or one has alone, waiting for it.

    Whoever takes a blob for its own that was there already shares it; a collection that removes blobs has it alone.
    Raises StoreError when the lock file cannot be made.
    """
    with fs.translate_errors("take a lock", path):
        # Reading is enough for a lock, also on a file that another user of the store made.
        try:
            fd = _open_lock(path, os.O_RDONLY)
        except FileNotFoundError:
            fs.current.mkdir(path.parent)
            fd = _open_lock(path, os.O_RDONLY | os.O_CREAT)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
        yield
    finally:
        os.close(fd)


def is_held(path: Path) -> bool:
    """Whether some process holds the lock right now; a lock file that is missing or closed to us is not held."""
    try:
        fd = _open_lock(path, os.O_RDONLY)
    except (OSError, StoreError):
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


class FileLock:
    """An exclusive lock.  Use `try_acquire` or `acquire`, then `release`; a second acquire of a held lock is a bug."""

    def __init__(self, path: Path, elsewhere: str = fs.CACHE) -> None:
        self.path = path
        self._elsewhere = elsewhere
        self._fd: int | None = None

    @property
    def fd(self) -> int:
        """The held descriptor.  A child that inherits it keeps the lock until it ends too."""
        if self._fd is None:
            raise RuntimeError("the lock is not held")
        return self._fd

    @property
    def held(self) -> bool:
        return self._fd is not None

    def try_acquire(self, label: str = "") -> bool:
        """Take the lock if it is free.  Raises StoreError when the lock file cannot be made."""
        with fs.translate_errors("take a lock", self.path, self._elsewhere):
            while True:
                fd = self._open()
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    status = os.fstat(fd)
                    with contextlib.suppress(FileNotFoundError):
                        current = os.stat(self.path)  # noqa: PTH116 - once a task.
                        if (current.st_ino, current.st_dev) == (status.st_ino, status.st_dev):
                            if status.st_size:
                                os.ftruncate(fd, 0)
                            os.pwrite(fd, json.dumps({"pid": os.getpid(), "label": label}).encode(), 0)
                            self._fd = fd
                            return True
                except BlockingIOError:
                    os.close(fd)
                    return False
                except BaseException:
                    os.close(fd)
                    raise
                # A cleaner removed the file between our open and our lock: nobody else would see this lock.
                os.close(fd)

    def acquire(self, label: str = "", *, poll: Callable[[Owner | None], None]) -> None:
        """Wait for the lock.  `poll` is called with the owner (None when unknown) before each new try; it waits, and
        ends the waiting by raising."""
        while not self.try_acquire(label):
            poll(self.owner())

    def owner(self) -> Owner | None:
        """Who wrote the record last; only worth showing to a person."""
        try:
            fd = _open_lock(self.path, os.O_RDONLY)
            try:
                record = parse_json(os.read(fd, _MOST_RECORD))
            finally:
                os.close(fd)
            return Owner(int(record["pid"]), str(record["label"]))
        except (OSError, StoreError, ValueError, KeyError, TypeError, OverflowError):
            return None

    def release(self, *, remove: bool = False) -> None:
        """Give the lock up; with `remove` its file goes too (safe: others notice that they locked a removed file)."""
        if self._fd is None:
            return
        try:
            if remove:
                with contextlib.suppress(OSError):
                    fs.current.unlink(self.path)
        finally:
            os.close(self._fd)
            self._fd = None

    def _open(self) -> int:
        try:
            return _open_lock(self.path, os.O_RDWR | os.O_CREAT)
        except FileNotFoundError:
            fs.current.mkdir(self.path.parent)
            return _open_lock(self.path, os.O_RDWR | os.O_CREAT)


def _open_lock(path: Path, flags: int) -> int:
    """Open a lock's file, never what a link points to: it is written to, and may come with a repository or a cache.

    Raises OSError, and StoreError for what is no regular file.
    """
    try:
        # Without O_NONBLOCK the opening of a pipe would wait for its other end.
        fd = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise _no_lock(path) from error
        raise
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise _no_lock(path)
    return fd


def _no_lock(path: Path) -> StoreError:
    return StoreError(
        "cannot take a lock",
        where=str(path),
        why="a link, a directory or something else is where the lock's file should be",
        fix="find out who put it there, and remove it",
    )
