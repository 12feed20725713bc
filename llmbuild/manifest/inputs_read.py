"""The files that a project was made from, so that a cached plan can be checked without reading the manifest again.

Checking costs one read and one SHA-256 of a few small files, and imports neither pydantic nor tomllib.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from llmbuild.canonical import Digest, Json, digest_bytes, digest_file, digest_json


@dataclass(frozen=True, slots=True)
class Read:
    """One thing that was read.  `kind` is "file" (its bytes), "listing" (the names of the .toml files in a directory: a
    new one may hide another), "cpu" (what a native target was resolved to), "machine" (the target that `host` was resolved
    to) or "variable" (the value of one of the environment, which a path has).  `digest` None means that it was absent."""

    kind: Literal["file", "listing", "cpu", "machine", "variable"]
    path: str
    digest: Digest | None

    @staticmethod
    def file(path: Path) -> Read:
        return Read("file", str(path), _digest("file", str(path)))

    @staticmethod
    def listing(path: Path) -> Read:
        return Read("listing", str(path), _digest("listing", str(path)))

    @staticmethod
    def cpu(triple: str) -> Read:
        """The CPU of this machine, as the triple (kept in `path`) sees it."""
        return Read("cpu", triple, _digest("cpu", triple))

    @staticmethod
    def machine() -> Read:
        """The kind of this machine."""
        return Read("machine", "", _digest("machine", ""))

    @staticmethod
    def variable(name: str) -> Read:
        """A variable of the environment."""
        return Read("variable", name, _digest("variable", name))

    def is_current(self) -> bool:
        """Whether a read now would return the same."""
        return _digest(self.kind, self.path) == self.digest

    def to_json(self) -> Mapping[str, Json]:
        return asdict(self)

    @staticmethod
    def from_json(value: Mapping[str, str | None]) -> Read:
        return Read(**value)  # type: ignore[arg-type]


def all_current(reads: Iterable[Read]) -> bool:
    """Whether a project made from these would be the same now."""
    return all(read.is_current() for read in reads)


def _digest(kind: str, path: str) -> Digest | None:
    if kind == "cpu":
        return _cpu(path)
    if kind == "machine":
        from llmbuild.targets.names import host_target

        return digest_json(host_target())
    if kind == "variable":
        value = os.environ.get(path)
        return None if value is None else digest_json(value)
    place = Path(path)
    try:
        if kind == "listing":
            return digest_bytes("\n".join(sorted(file.name for file in place.glob("*.toml"))).encode())
        # A pipe in the place of a file would block whoever opens it.
        return digest_file(place) if place.is_file() else None
    except OSError:
        return None


def _cpu(triple: str) -> Digest | None:
    from llmbuild.errors import ToolchainError
    from llmbuild.targets.cpu import native_cpu

    try:
        cpu, features = native_cpu(triple)
    except ToolchainError:
        return None
    return digest_json([cpu, *features])
