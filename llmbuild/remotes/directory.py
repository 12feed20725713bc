"""A directory that machines share.  It is a store, so that `llmbuild cache` works on it with `--cache-dir`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from llmbuild.canonical import CHUNK, Digest
from llmbuild.engine import files, records
from llmbuild.engine.remote import Blobs, Remote, Results
from llmbuild.engine.store import Store
from llmbuild.home import at_home

PREFIX = "directory:"


def open_remote(place: str) -> Remote:
    """The cache at a path, with or without `directory:` before it.  Raises StoreError where it is none of this llmbuild."""
    store = Store(at_home(place.removeprefix(PREFIX), "the other cache"))
    return Remote(_Blobs(store), _Results(store))


class _Blobs(Blobs):
    """What the taker verifies is not verified here."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def has(self, digest: Digest) -> bool:
        return self._store.cas.blob_path(digest).is_file()

    def get(self, digest: Digest) -> Iterator[bytes]:
        with _opened(self._store.cas.blob_path(digest)) as file:
            while piece := file.read(CHUNK):
                yield piece

    def put(self, digest: Digest, file: Path) -> None:
        there = self._store.cas.blob_path(digest)
        if there.is_file() and there.stat().st_size != file.stat().st_size:
            # It is wrong without being read, which for a file with a hole of any size would not end.
            self._store.cas.remove(digest)
        if not self._store.cas.has(digest):
            self._store.cas.put_file(file)


class _Results(Results):
    def __init__(self, store: Store) -> None:
        self._store = store

    def get(self, action: Digest) -> bytes | None:
        try:
            with _opened(self._store.traces.path(action)) as file:
                # A byte more than a record may have shows that it is none.
                return file.read(records.MOST_RECORD + 1)
        except FileNotFoundError:
            return None

    def put(self, action: Digest, record: bytes) -> None:
        path = self._store.traces.path(action)
        files.write_atomic(path, record, durable=True, scratch=self._store.scratch())


def _opened(path: Path) -> IO[bytes]:
    # Without O_NONBLOCK the opening of a pipe would wait for its other end.
    return open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb")  # noqa: PTH123
