"""A tree: a sorted list of files with their digests, itself a blob."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable
from dataclasses import dataclass

from llmbuild.canonical import Digest, canonical_json, digest_bytes, parse_digest
from llmbuild.engine import records
from llmbuild.jsontext import parse_json


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
        rows = parse_json(data, most_bytes=records.MOST_RECORD)
        if not isinstance(rows, list):
            raise ValueError("a tree is a list of files")
        tree = Tree.of(map(_entry, rows))
        _require_one_place_each(tree)
        return tree

    @property
    def digest(self) -> Digest:
        return digest_bytes(self.to_bytes())

    def select(self, patterns: Iterable[str]) -> Tree:
        """The files whose path matches one of the shell patterns."""
        wanted = tuple(patterns)
        return Tree(tuple(f for f in self.files if any(fnmatch.fnmatchcase(f.path, p) for p in wanted)))


def _entry(row: object) -> FileEntry:
    if not isinstance(row, list) or len(row) != 4 or type(row[3]) is not bool:
        raise ValueError("a file of a tree has a path, a digest, a size, and whether it is executable")
    return FileEntry(records.file_path(row[0]), parse_digest(row[1]), records.count(row[2], "a size"), row[3])


def _require_one_place_each(tree: Tree) -> None:
    """Raise ValueError when two files have one path, or one has that of another's directory."""
    paths = {entry.path for entry in tree.files}
    if len(paths) < len(tree.files):
        raise ValueError("two of its files have the same path")
    for path in paths:
        at = path.find("/")
        while at >= 0:
            if path[:at] in paths:
                raise ValueError(f"{path[:at]} is a file and a directory of it")
            at = path.find("/", at + 1)
