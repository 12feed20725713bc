"""Digests of files outside the store, remembered by their stat.

Planning needs the digest of a 100 MB checkpoint without reading it each time.  An entry is valid as long as inode, size, mtime
and ctime are unchanged.  A file that was modified within two seconds of the moment it was hashed is not remembered, because a
later change could leave the same times (the clock of a file system may tick that slowly).
"""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path
from typing import Any

from llmbuild.canonical import Digest, digest_file, known_digest
from llmbuild.engine import files, fs
from llmbuild.engine.verified import Stamp, stamp_of
from llmbuild.errors import InputError, StoreError
from llmbuild.jsontext import parse_json
from llmbuild.printable import is_text

RACY_NS = 2_000_000_000
"""A file that was changed so recently may change again without another time."""
_MOST_BYTES = 256 << 20
"""The largest file that is read: a million entries."""

_DISTRUSTED: list[int] = []
"""The row of a file that had other bytes than were recorded."""


class Anew:
    """A stat cache that is not trusted: for commands that promise to read every byte."""

    def __init__(self, cache: StatCache) -> None:
        self._cache = cache

    def digest(self, path: Path) -> Digest:
        return self._cache.digest_anew(path)


class StatCache:
    """Path -> SHA-256.  Loaded at the first lookup, written by `save`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._entries: dict[str, Any] | None = None
        self._fresh: dict[str, Any] = {}
        self._renewed: set[str] = set()
        self._hashed: dict[str, Digest] = {}

    def digest(self, path: Path) -> Digest:
        """The SHA-256 of a file's content.  Raises InputError when it cannot be read."""
        if self._entries is None:
            self._entries = self._load()
        name = str(path.absolute())
        try:
            stamp = stamp_of(path.stat())
            row = self._entries.get(name)
            known = _remembered(row, stamp)
            if known is not None:
                return known
            digest = digest_file(path)
            after = stamp_of(path.stat())
        except OSError as error:
            raise InputError("cannot read a file", where=str(path), why=error.strerror or str(error)) from error
        newest = max(after[2], after[3])
        # A name that is not UTF-8 is no JSON: one of them would lose the whole file.
        old = time.time_ns() - newest > RACY_NS
        if after == stamp and old and is_text(name):
            self._entries[name] = self._fresh[name] = [*stamp, digest]
            if _distrusted(row):
                self._renewed.add(name)
        return digest

    def digest_anew(self, path: Path) -> Digest:
        """As `digest`, whatever the stat: a change through a mapping may leave all times as they were.

        Each file is hashed once by this object, which is as old as the command.
        """
        name = str(path.absolute())
        if name not in self._hashed:
            if self._entries is None:
                self._entries = self._load()
            self._entries.pop(name, None)
            self._hashed[name] = self.digest(path)
        return self._hashed[name]

    def distrust(self, path: Path) -> None:
        """Forget a file's digest: it had other bytes, perhaps at the same times, as after a change through a mapping.

        Processes that used the old one and save their entries only later do not bring it back.
        """
        name = str(path.absolute())
        if is_text(name):
            if self._entries is None:
                self._entries = self._load()
            self._entries[name] = self._fresh[name] = _DISTRUSTED

    def save(self) -> None:
        """Save new entries, merged with those of other processes.  A failure costs only later hashing."""
        self._entries = None
        if not self._fresh:
            return
        rows = self._load()
        for name, row in self._fresh.items():
            if name in self._renewed or not _distrusted(rows.get(name)):
                rows[name] = row
        rows = dict(sorted(rows.items()))
        with contextlib.suppress(StoreError, OSError):
            fs.current.mkdir(self._path.parent)
            files.write_atomic(self._path, json.dumps(rows).encode())
            self._fresh = {}
            self._renewed.clear()

    def _load(self) -> dict[str, Any]:
        # A row is checked when it is looked up: a plan looks up hundreds of the million that a store may have.
        try:
            rows = parse_json(self._path.read_bytes(), most_bytes=_MOST_BYTES)
        except (OSError, ValueError):
            return {}
        return rows if isinstance(rows, dict) else {}


def _distrusted(row: Any) -> bool:
    """Whether a row marks a file that had other bytes than were recorded; a process that detected that and hashed it anew may
    replace it."""
    return isinstance(row, list) and row == _DISTRUSTED


def _remembered(row: Any, stamp: Stamp) -> Digest | None:
    """The digest of a row of the file when the row is of this stamp."""
    return known_digest(row[4]) if isinstance(row, list) and len(row) == 5 and tuple(row[:4]) == stamp else None
