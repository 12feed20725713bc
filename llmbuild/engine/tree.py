"""A tree: a sorted list of files with their digests, itself a blob."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Iterable
from dataclasses import dataclass

from llmbuild.canonical import Digest, canonical_json, digest_bytes, parse_digest


@dataclass(frozen=True, slots=True, order=True)
class FileEntry:
    """One file of a tree; `path` is relative, with forward slashes."""

    path: str
    digest: Digest
    size: int
    executable: bool = False


@dataclass(frozen=True, slots=True)
class Tree:
    """Files sorted by path.  Directories exist only as parts of paths."""

    files: tuple[FileEntry, ...]

    @staticmethod
    def of(files: Iterable[FileEntry]) -> Tree:
        return Tree(tuple(sorted(files)))

    def to_bytes(self) -> bytes:
        return canonical_json([[f.path, f.digest, f.size, f.executable] for f in self.files])

    @staticmethod
    def from_bytes(data: bytes) -> Tree:
        """Parse a tree blob; raises ValueError when the bytes are not one."""
        rows = json.loads(data.decode())
        if not isinstance(rows, list):
            raise ValueError("a tree is a list of files")
        return Tree.of(
            FileEntry(path, parse_digest(digest), size, executable) for path, digest, size, executable in rows
        )

    @property
    def digest(self) -> Digest:
        return digest_bytes(self.to_bytes())

    def select(self, patterns: Iterable[str]) -> Tree:
        """The files whose path matches one of the shell patterns."""
        wanted = tuple(patterns)
        return Tree(tuple(f for f in self.files if any(fnmatch.fnmatchcase(f.path, p) for p in wanted)))
