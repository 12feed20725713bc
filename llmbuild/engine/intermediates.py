"""Intermediate results: what a task made on the way to its output, for later runs of its kind that come to the same.

`intermediates/<tools>/<key>` holds one: 32 bytes of SHA-256, and the compressed data that have it.  `<tools>` is the digest of
all that every run of a kind depends on (its version, its sources, its tools), and `<key>` is the task's own name for the
result, which says what it was made from.  A result that is missing, damaged or cannot be read is made again, and one that
cannot be written is not kept: nothing depends on them.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from llmbuild.canonical import Digest, digest_json, known_digest
from llmbuild.engine import files, fs
from llmbuild.engine.action import Action
from llmbuild.engine.locks import FileLock
from llmbuild.errors import StoreError

_SHA256 = hashlib.sha256().digest_size
_LEVEL = 1
"""zlib's fastest: texts of functions shrink to a tenth by it."""
_USE_GRAIN_S = 3600.0
_POLL_S = 0.02


class Intermediates:
    """The intermediate results that the runs of an action may take, and those that this run took and made."""

    def __init__(self, root: Path, action: Action, scratch: Callable[[], Path]) -> None:
        """`root` is the directory of all of a store."""
        tools = digest_json({"kind": action.kind, "version": action.version, "tools": action.tools})
        self._directory = f"{root}/{tools}"
        self._scratch = scratch
        self._locks = root.parent / "locks"
        self.taken = 0
        self.made = 0

    def get(self, key: Digest) -> bytes | None:
        """An earlier run's result, or None where there is none."""
        path = f"{self._directory}/{key}"
        data = None if self._leads_away() else _read(path)
        if data is None:
            return None
        self.taken += 1
        with contextlib.suppress(OSError):
            if time.time() - os.stat(path).st_mtime > _USE_GRAIN_S:  # noqa: PTH116 - a hundred times a task.
                fs.current.touch(path)
        return data

    def put(self, key: Digest, data: bytes) -> None:
        """Keep a result for later runs."""
        self.made += 1
        if self._leads_away():
            return
        compressed = zlib.compress(data, _LEVEL)
        content = hashlib.sha256(compressed).digest() + compressed
        with contextlib.suppress(StoreError):
            files.write_atomic(f"{self._directory}/{key}", content, scratch=self._scratch())

    @contextlib.contextmanager
    def alone(self, key: Digest) -> Iterator[None]:
        """Make a result while no other run makes it: entering waits for one that does.  The lock dies with its owner, and a store
        that gives none is no reason not to make the result."""
        lock = FileLock(self._locks / f"{Path(self._directory).name}-{key}")
        with contextlib.suppress(StoreError):
            lock.acquire(poll=lambda _: time.sleep(_POLL_S))
        try:
            yield
        finally:
            lock.release(remove=True)

    def _leads_away(self) -> bool:
        """Whether someone who shares the store has put a link in the place of the directory: what is behind it is not its own."""
        return Path(self._directory).is_symlink()


@dataclass(frozen=True, slots=True)
class IntermediateFacts:
    """A file of intermediate results, its size in bytes, and its last use in seconds since the epoch."""

    path: Path
    size: int
    used: float


def intermediate_files(root: Path) -> Iterator[IntermediateFacts]:
    """Every file below the directory, in no order; links are not followed."""
    for path in root.glob("*/*"):
        with contextlib.suppress(OSError):
            status = path.lstat()
            if not stat.S_ISDIR(status.st_mode):
                yield IntermediateFacts(path, status.st_size, status.st_mtime)


def is_sound(path: Path) -> bool:
    """Whether a file below the directory is a result as one was written."""
    named = known_digest(path.name) is not None and known_digest(path.parent.name) is not None
    return named and _read(str(path)) is not None


def _read(path: str) -> bytes | None:
    try:
        content = files.read_bytes(path)
        if hashlib.sha256(content[_SHA256:]).digest() != content[:_SHA256]:
            return None
        return zlib.decompress(content[_SHA256:])
    except (OSError, zlib.error):
        return None
