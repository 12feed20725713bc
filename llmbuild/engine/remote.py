"""The interface of another cache: a directory that machines share, or something behind a network.

A cache is one module with a function `open_remote(place)` that returns a `Remote` (`llmbuild/remotes/`).  Everything here is
called from several threads at once, and never in a process that forks afterwards.  It may raise anything: that is reported
once, and the build goes on without it.  Nothing that it returns is trusted but its claim that a result is that of its action
(`engine/sharing.py`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from llmbuild.canonical import Digest


class Blobs(ABC):
    """Bytes by their SHA-256."""

    @abstractmethod
    def has(self, digest: Digest) -> bool:
        """Whether a blob is there, as far as that can be determined without reading it."""

    @abstractmethod
    def get(self, digest: Digest) -> Iterable[bytes]:
        """The bytes of a blob in pieces of any size, none of them empty.

        Raises FileNotFoundError, at once or at the first piece, when there is none.
        """

    @abstractmethod
    def put(self, digest: Digest, file: Path) -> None:
        """Keep the bytes of a file, which do not change and whose SHA-256 is `digest`, whole or not at all."""

    def missing(self, digests: Collection[Digest]) -> Collection[Digest]:
        """Those of some blobs that are not there; a cache that can look up many at a time overrides this."""
        return [digest for digest in digests if not self.has(digest)]


class Results(ABC):
    """The results of actions, as small records by the action's digest."""

    @abstractmethod
    def get(self, action: Digest) -> bytes | None:
        """The record as it was put, None when there is none."""

    @abstractmethod
    def put(self, action: Digest, record: bytes) -> None:
        """Keep a record, whole or not at all; one that is there may stay.  All blobs that it refers to are there already."""


@dataclass(frozen=True, slots=True)
class Remote:
    """A cache that is open."""

    blobs: Blobs
    results: Results
