"""Intermediate results of lowering in memory, counted."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from llmbuild.canonical import Digest


class Memory(dict[Digest, bytes]):
    """What was kept, and which of it was taken since `count`."""

    def __init__(self) -> None:
        super().__init__()
        self.count()

    def count(self) -> None:
        self.taken, self.made = 0, 0

    def get(self, key: Digest) -> bytes | None:  # type: ignore[override]
        found = super().get(key)
        self.taken += found is not None
        return found

    def put(self, key: Digest, data: bytes) -> None:
        self.made += 1
        self[key] = data

    def alone(self, key: Digest) -> AbstractContextManager[None]:
        return nullcontext()
