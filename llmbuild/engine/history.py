"""What each task of a project was at its last successful build: label -> action digest.

This is what a reason compares with ("group size 32 -> 64").  One small JSON file a project, written when it changes.
When it is lost, the index over traces answers instead.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from llmbuild.canonical import Digest, canonical_json, digest_bytes, parse_digest
from llmbuild.engine import files, fs, records

_BUILD_GRAIN_S = 3600.0


def read_history(path: Path) -> tuple[str, dict[str, Digest]]:
    """The project of a history's file, and its last actions.  Raises OSError, and ValueError for what is no history."""
    record = records.json_object(files.read_bytes(str(path)))
    last = records.mapping(record.get("last"), "the last actions")
    actions = {records.text(label, "a label"): parse_digest(digest) for label, digest in last.items()}
    return records.text(record.get("project"), "the project"), actions


class History:
    """The last actions of one project in one store."""

    def __init__(self, root: Path, project: str, scratch: Callable[[], Path]) -> None:
        self.path = root / f"{digest_bytes(project.encode())[:32]}.json"
        self._project = project
        self._scratch = scratch
        self._last: dict[str, Digest] | None = None

    def last(self) -> Mapping[str, Digest]:
        """The last action of each label; empty when nothing is known."""
        if self._last is None:
            try:
                self._last = read_history(self.path)[1]
            except (OSError, ValueError):
                self._last = {}
        return self._last

    def update(self, actions: Mapping[str, Digest]) -> None:
        """Record what labels were built from now; writes only when something is new.  Raises StoreError."""
        before = self.last()
        if all(before.get(label) == digest for label, digest in actions.items()):
            # The file's mtime is the time of the last build, which determines what a collection keeps.
            with contextlib.suppress(OSError):
                if time.time() - self.path.stat().st_mtime > _BUILD_GRAIN_S:
                    fs.current.touch(self.path)
            return
        self._last = {**before, **actions}
        files.write_atomic(
            self.path, canonical_json({"project": self._project, "last": self._last}), scratch=self._scratch()
        )
