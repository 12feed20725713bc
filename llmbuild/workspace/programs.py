"""The identity of programs by content: the digest of a tool's parts, cached so that a plan that changes nothing stays quick.

Files are hashed through the store's memo of stats.  Whole directories, the shared libraries of a program and the version that
a tool reports are cached in one file of the store, each under what it follows from: the stats of the files of the
directory, the program's content, the digest of the tool's parts.  Nothing is cached by a path or a time alone.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from operator import itemgetter
from pathlib import Path
from typing import Protocol

from llmbuild.canonical import Digest, Json, canonical_json, digest_bytes, digest_file, digest_json
from llmbuild.engine import files
from llmbuild.engine.statcache import RACY_NS
from llmbuild.errors import StoreError, ToolchainError
from llmbuild.jsontext import parse_json
from llmbuild.programs.parts import FileTree, Listed, Parts, loaded_libraries

PROGRAMS_MEMO = "programs.json"
"""The file in a store."""

_MOST = 512
"""How many answers are kept."""


class Digests(Protocol):
    """Returns the SHA-256 of a file, from the cache where the file is unchanged."""

    def digest(self, path: Path) -> Digest: ...


class Programs:
    """Digests of tools; `memo` is the file that caches them, None for no cache beyond this object."""

    def __init__(self, digests: Digests, memo: Path | None = None) -> None:
        self._digests = digests
        self._memo = memo
        self._known: dict[str, Json] | None = None
        self._fresh = False

    def digest(self, parts: Parts) -> Digest:
        """The digest of all that decides what a tool writes.  Names count without directories: two machines with equal
        packages have equal digests.  Raises ToolchainError for a part that cannot be read."""
        rows: list[Json] = []
        try:
            for path in parts.programs:
                rows.append([path.name, self._digests.digest(path)])
                rows += [[one.name, self._digests.digest(one)] for one in self._libraries(path)]
            rows += [[path.name, self._digests.digest(path)] for path in parts.files]
            rows += [[tree.root.name, self.tree(tree)] for tree in parts.trees]
        except OSError as error:
            raise ToolchainError(
                "a part of a tool cannot be read", where=str(error.filename), why=error.strerror or str(error),
                fix="reinstall the tool",
            ) from error  # fmt: skip
        return digest_json(sorted(rows, key=canonical_json))

    def tree(self, tree: FileTree) -> Digest:
        """The digest of the files of a directory.  Raises OSError."""
        return self.listed(tree.root, tree.walk())

    def listed(self, root: Path, found: list[Listed]) -> Digest:
        """The digest of files of a directory, by their relative paths.  Raises OSError."""
        newest = max(max(map(time_of, found), default=0) for time_of in (itemgetter(3), itemgetter(4)))

        def hashed() -> Json:
            return digest_json({row[0]: digest_file(root / row[0]) for row in found})

        if newest >= time.time_ns() - RACY_NS:
            return digest_json(hashed())
        # The list is encoded without a step of Python for each of thousands of files.
        return digest_json(self.remembered(["tree", digest_bytes(repr(found).encode())], hashed))

    def remembered(self, question: Json, ask: Callable[[], Json]) -> Json:
        """The cached answer to a question, which must have everything that the answer follows from."""
        if self._known is None:
            self._known = self._load()
        key = digest_json(question)
        if key not in self._known:
            self._known[key] = ask()
            self._fresh = True
        return self._known[key]

    def save(self) -> None:
        """Write the memo; a failure costs only the cache."""
        if not self._fresh or self._memo is None or self._known is None:
            return
        kept = dict(list({**self._load(), **self._known}.items())[-_MOST:])
        with contextlib.suppress(StoreError, OSError):
            files.write_atomic(self._memo, canonical_json(kept))
            self._fresh = False

    def _libraries(self, program: Path) -> list[Path]:
        def ask() -> Json:
            return [str(path) for path in loaded_libraries(program)]

        # The loader's search path depends on the machine, so a library that was moved is looked up again.
        question: list[Json] = ["libraries", self._digests.digest(program)]
        answer = self.remembered(question, ask)
        paths = [Path(str(path)) for path in answer] if isinstance(answer, list) else []
        return paths if all(path.is_file() for path in paths) else loaded_libraries(program)

    def _load(self) -> dict[str, Json]:
        if self._memo is None:
            return {}
        try:
            value = parse_json(self._memo.read_bytes())
        except (OSError, ValueError):
            return {}
        return value if isinstance(value, dict) else {}
