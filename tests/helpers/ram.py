"""Fast file systems for tests of many builds: memory where there is some, and no waiting for a disk."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from llmbuild.engine.fs import FileSystem

_SHM = Path("/dev/shm")


@contextlib.contextmanager
def ram_directory() -> Iterator[Path]:
    """A temporary directory in memory (on Linux), else an ordinary one; gone afterwards."""
    place = _SHM if _SHM.is_dir() and os.access(_SHM, os.W_OK) else None
    path = Path(tempfile.mkdtemp(prefix="llmbuild-test-", dir=place))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


class UnsyncedFs(FileSystem):
    """The real file system without fsync: what a test writes need not survive a power loss."""

    def fsync(self, fd: int) -> None:
        pass
