"""Writing fetched bytes: hashed while they pass, and refused when they are not the promised ones."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, Protocol

from llmbuild.canonical import CHUNK, Digest, finish_digest
from llmbuild.errors import FetchError, StoreError


class Progress(Protocol):
    """Units done, units in all (0 when unknown), and what the units are."""

    def __call__(self, done: int, total: int, unit: str = "") -> None: ...


class Meter:
    """Counts bytes over several files for a progress bar."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress = progress
        self._total = total
        self._done = 0

    def add(self, size: int) -> None:
        """Count `size` more bytes (negative when some have to be fetched again)."""
        self._done += size
        self._progress(self._done, self._total, "bytes")


_RESERVE = 256 << 20
_RESERVE_SHARE = 0.05
"""What bytes of unknown number leave free of a disk: the smaller of the two."""


def free_space(place: int | Path, *, reserve: bool) -> int:
    """How many bytes a disk has place for, less a reserve for everything else that writes to it."""
    status = os.statvfs(place)
    kept = min(_RESERVE, int(status.f_blocks * status.f_frsize * _RESERVE_SHARE)) if reserve else 0
    return status.f_bavail * status.f_frsize - kept


def copy_stream(
    source: IO[bytes], dest: Path, add: Callable[[int], None], most: int | None = None
) -> tuple[Digest, int]:
    """Write a stream to a new file; returns the SHA-256 and the size.  Raises StoreError when it cannot be written.

    A size beyond `most` means that there was more, which was not written.
    """
    sha256, size = hashlib.sha256(), 0
    try:
        file = dest.open("wb", buffering=0)  # Without a buffer no error is left for the moment of closing.
    except OSError as error:
        raise unwritable(dest, error) from error
    with file:
        while chunk := source.read(CHUNK):
            sha256.update(chunk)
            size += len(chunk)
            if most is not None and size > most:
                break
            rest = memoryview(chunk)
            try:
                while rest:
                    rest = rest[file.write(rest) :]
            except OSError as error:
                raise unwritable(dest, error) from error
            add(len(chunk))
    return finish_digest(sha256), size


def unwritable(path: Path, error: OSError) -> StoreError:
    """The error of a file that cannot be written."""
    return StoreError(
        f"cannot write '{path.name}'",
        where=str(path.parent),
        why=error.strerror or str(error),
        fix="free some space or choose another place for the cache",
    )


def check_digest(found: Digest, promised: str | None, what: str, fix: str) -> None:
    """Raise FetchError when a promised SHA-256 is not the found one."""
    if promised is not None and found != promised:
        raise FetchError(
            f"{what} has another SHA-256 than was promised", why=f"promised {promised}, found {found}", fix=fix
        )
