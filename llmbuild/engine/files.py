"""Atomic file operations: a reader sees the old content or the new, never a part of either."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import os
import stat
from pathlib import Path
from typing import Literal, TypeAlias

from llmbuild.canonical import CHUNK, Digest, finish_digest
from llmbuild.engine import fs

TEMPORARY = ".llmbuild-tmp-"
"""The prefix of temporary files that are made beside their destination."""

Shared: TypeAlias = Literal["reflink", "link", "copy"]

_READ = 16 << 10
"""Larger than nearly every trace and tree.  A regular file gives all it has, so less than this is the end of it."""

_READING = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
"""A pipe in the place of a file has nothing to read; without this the opening would wait for somebody who writes to it."""

_process_token = os.urandom(4).hex()
_counter = itertools.count()


def temporary_name() -> str:
    """A name that no other process and no earlier call uses."""
    return f"{TEMPORARY}{_process_token}-{os.getpid()}-{next(_counter)}"


def write_all(fd: int, data: bytes | memoryview) -> None:
    """Write all of `data`, however few bytes each system call takes."""
    view = memoryview(data)
    while view:
        view = view[fs.current.write(fd, view) :]


def write_atomic(
    path: fs.StrPath,
    data: bytes,
    *,
    durable: bool = False,
    mode: int = 0o644,
    scratch: fs.StrPath | None = None,
    elsewhere: str = fs.CACHE,
) -> None:
    """Replace a file's content in one step.

    The temporary file is made in `scratch` (which must be on the same file system) or beside the file.  `durable` makes
    the content and the name survive a power loss.  Raises StoreError, whose fix names `elsewhere` (see fs.store_error).
    """
    path = os.fspath(path)
    with fs.translate_errors("write a file", path, elsewhere):
        directory = os.path.dirname(path) or "."  # noqa: PTH120 - dozens of times a task.
        temporary = f"{directory if scratch is None else os.fspath(scratch)}/{temporary_name()}"
        if scratch is None:
            fs.current.mkdir(directory)
        try:
            fd = fs.current.create(temporary)
            try:
                write_all(fd, data)
                if mode != 0o644:
                    fs.current.chmod(temporary, mode)
                if durable:
                    fs.current.fsync(fd)
            finally:
                os.close(fd)
            publish(temporary, path)
        except OSError:
            discard(temporary)
            raise
        if durable:
            sync_directory(directory)


def digest_and_size(path: str) -> tuple[Digest, int]:
    """The SHA-256 and the size of a file, with the fewest system calls where it is small.  Raises OSError."""
    fd = os.open(path, _READING)
    try:
        data = os.read(fd, _READ)
        digest, size = hashlib.sha256(data), len(data)
        if size == _READ:
            while data := os.read(fd, CHUNK):
                digest.update(data)
                size += len(data)
        return finish_digest(digest), size
    finally:
        os.close(fd)


def read_bytes(path: str) -> bytes:
    """A file's content with the fewest system calls: this is what a null build does most.  Raises OSError."""
    fd = os.open(path, _READING)
    try:
        data = os.read(fd, _READ)
        if len(data) < _READ:
            return data
        parts = [data]
        while data := os.read(fd, CHUNK):
            parts.append(data)
        return b"".join(parts)
    finally:
        os.close(fd)


def publish(temporary: fs.StrPath, path: fs.StrPath) -> None:
    """Rename into place, making the directory when it is missing."""
    try:
        fs.current.replace(temporary, path)
    except FileNotFoundError:
        fs.current.mkdir(os.path.dirname(path))  # noqa: PTH120
        fs.current.replace(temporary, path)


def put_in_place(temporary: fs.StrPath, path: fs.StrPath) -> None:
    """Rename over whatever is there; where that fails, the temporary file is gone.  Raises OSError."""
    try:
        fs.current.replace(temporary, path)
    except OSError:
        discard(temporary)
        raise
    # Renaming one name of a file over another name of the same file does nothing, by POSIX.
    fs.current.unlink(temporary)


def discard(path: fs.StrPath) -> None:
    """Remove a temporary file as well as it goes: the error that led here matters more than this one."""
    with contextlib.suppress(OSError):
        fs.current.unlink(path)


def sync_directory(path: fs.StrPath) -> None:
    """Make the names in a directory durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fs.current.fsync(fd)
    finally:
        os.close(fd)


def copy_hashed(source: Path, dest: fs.StrPath) -> tuple[Digest, int]:
    """Copy into a new file; returns the SHA-256 and the size of the bytes that were written.  Raises OSError."""
    digest = hashlib.sha256()
    size = 0
    out = fs.current.create(dest)
    try:
        with source.open("rb", buffering=0) as file:
            while chunk := file.read(CHUNK):
                digest.update(chunk)
                write_all(out, chunk)
                size += len(chunk)
    finally:
        os.close(out)
    return finish_digest(digest), size


def share(source: Path, dest: Path, *, executable: bool = False, links: bool = True) -> Shared:
    """Make the new file `dest` with the content of `source`, read-only, in the cheapest way that works.

    A reflink costs no space and stays independent; a hard link costs nothing but shares its permissions with the
    source, so that it serves only for files that are not executable; a copy always works.  Raises OSError.
    """
    mode = 0o555 if executable else 0o444
    out = fs.current.create(dest)
    try:
        with source.open("rb", buffering=0) as file:
            fs.current.clone(file.fileno(), out)
        fs.current.chmod(dest, mode)
        return "reflink"
    except OSError as error:
        if error.errno not in fs.CANNOT_SHARE:
            raise
    finally:
        os.close(out)
    fs.current.unlink(dest)
    if links and not executable:
        try:
            fs.current.hard_link(source, dest)
            return "link"
        except OSError as error:
            if error.errno not in fs.CANNOT_SHARE:
                raise
    copy_hashed(source, dest)
    fs.current.chmod(dest, mode)
    return "copy"


def remove_tree(path: fs.StrPath, root: fs.StrPath) -> None:
    """Remove a file, a link itself, or a directory with all its content, read-only parts included; a missing one is fine.

    Raises OSError, also for what does not lie below the directory `root`, or only through a link.
    """
    path, root = os.path.normpath(path), os.path.normpath(root)
    parent = os.path.dirname(path)  # noqa: PTH120 - as below: no path is to be resolved by the way.
    if not path.startswith(f"{root}/") or not _really_below(parent, root):
        raise PermissionError(errno.EPERM, f"it does not lie in {root}, and is not removed", path)
    _remove_tree(path)


def _really_below(directory: str, root: str) -> bool:
    """Whether a directory lies where its name says, seen from the root: no part of the way is a link."""
    return os.path.realpath(directory) == os.path.realpath(root) + directory[len(root) :]


def _remove_tree(path: str) -> None:
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(mode):
        fs.current.unlink(path)
        return
    if mode & 0o700 != 0o700:
        fs.current.chmod(path, 0o700)
    with os.scandir(path) as entries:
        names = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_directory in names:
        if is_directory:
            _remove_tree(f"{path}/{name}")
        else:
            fs.current.unlink(f"{path}/{name}")
    with contextlib.suppress(FileNotFoundError):
        fs.current.rmdir(path)
