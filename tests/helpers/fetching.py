"""Observe a source and run its fetch task, as planning and the engine do."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmbuild.canonical import digest_file
from llmbuild.engine.kind import Job
from llmbuild.manifest.lock import Lock
from llmbuild.sources import observe
from llmbuild.sources.kind import Source
from llmbuild.tasks.fetch import KIND


class Digests:
    """A stat cache that remembers nothing."""

    def digest(self, path: Path) -> str:
        return digest_file(path)


class Fetched:
    """What a fetch gave: its params and hints, the files, and the progress it reported."""

    def __init__(self, params: Mapping[str, Any], hints: Mapping[str, Any], out: Path) -> None:
        self.params = params
        self.hints = hints
        self.out = out
        self.reported: list[tuple[int, int, str]] = []
        self.notes: list[str] = []

    @property
    def files(self) -> dict[str, bytes]:
        return {str(path.relative_to(self.out)): path.read_bytes() for path in self.out.rglob("*") if path.is_file()}


def fetch_source(source: Source, root: Path, *, lock: Lock | None = None, name: str = "out", **options: Any) -> Fetched:
    """Fetch into `root/name`, with partial downloads kept in `root/partial` between calls."""
    options.setdefault("partial", root / "partial")
    params, hints = observe(source, root, Digests(), lock if lock is not None else Lock(), **options)
    return fetch_observed(params, hints, root, name)


def fetch_observed(params: Mapping[str, Any], hints: Mapping[str, Any], root: Path, name: str = "out") -> Fetched:
    """Run the fetch task of an observed source."""
    assert set(params) == set(KIND.params)
    out, scratch = root / name, root / f"{name}-scratch"
    out.mkdir()
    scratch.mkdir()
    fetched = Fetched(params, hints, out)
    KIND.run(
        Job(
            params,
            {},
            hints,
            out,
            scratch,
            lambda done, total, unit="": fetched.reported.append((done, total, unit)),
            note=fetched.notes.append,
        )
    )
    return fetched
