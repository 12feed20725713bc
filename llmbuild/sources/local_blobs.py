"""Bytes that this machine has already, found by their SHA-256 instead of being downloaded once more.

A directory of blobs (`ab/cdef…`, as a store keeps them) is only a place to look: what is taken from it is hashed on the way,
and bytes with another digest count as not there.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO

from llmbuild.canonical import Digest
from llmbuild.sources.copying import Meter, Progress, copy_stream


def take(have: Path | None, sha256: Digest | None, dest: Path, add: Callable[[int], None]) -> bool:
    """Write the bytes with this SHA-256 to the new file `dest`; False, and no file, when they are not here.

    Raises StoreError when `dest` cannot be written.
    """
    if have is None or sha256 is None:
        return False
    try:
        source = _open_file(have / sha256[:2] / sha256[2:])
    except OSError:
        return False
    found: Digest | None = None
    size = 0
    # Where a bad disk is under the blob, the bytes must come from elsewhere.
    with source, contextlib.suppress(OSError):
        found, size = copy_stream(source, dest, add)
    if found == sha256:
        return True
    add(-size)
    with contextlib.suppress(OSError):
        dest.unlink(missing_ok=True)
    return False


def _open_file(path: Path) -> IO[bytes]:
    """A plain file, open; whatever else may lie in a store that others write to (a pipe, a way to a device) has no end."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    file = os.fdopen(descriptor, "rb")
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return file
    file.close()
    raise FileNotFoundError(errno.ENOENT, "no such file", str(path))


def take_all(have: Path | None, wanted: Mapping[str, Digest], out: Path, progress: Progress) -> bool:
    """Write all the files (name in `out` to SHA-256), or none and return False when one of them is not here."""
    if have is None or not wanted:
        return False
    paths = [have / sha256[:2] / sha256[2:] for sha256 in wanted.values()]
    try:
        meter = Meter(progress, sum(path.stat().st_size for path in paths))
    except OSError:
        return False
    for name, sha256 in wanted.items():
        if not take(have, sha256, out / name, meter.add):
            for written in wanted:
                with contextlib.suppress(OSError):
                    (out / written).unlink(missing_ok=True)
            return False
    return True
