"""The two sides of a source: what planning observes of it, and how the fetch task gets its bytes.

Observing gives `params`, which enter the fetch task's key and identify the bytes (contents of local files, a commit, a digest,
a package version), and `hints`, which only locate the bytes (a path, a URL, what the lock file promises).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmbuild.errors import FetchError, StoreError
from llmbuild.sources.copying import Progress
from llmbuild.sources.kind import Context, Keep, Observation, Pins, Refused, Source, StatCache
from llmbuild.sources.kinds import source_kind


def lock_key(source: Source, source_format: str | None = None) -> str:
    """How the lock file names a source: local ones by the path as it is written."""
    return source_kind(source.kind).lock_key(source.spec, _asked(source_format))


def observe(
    source: Source,
    root: Path,
    statcache: StatCache,
    lock: Pins,
    *,
    source_format: str | None = None,
    offline: bool = False,
    partial: Path | None = None,
    have: Path | None = None,
    manifest: Path | None = None,
    refused: Refused | None = None,
) -> Observation:
    """The params {"source", "files"} and the hints of a source's fetch task, in a context (see `kind.Context`).

    A revision of a hub that the lock does not pin is resolved by network and put into the lock.  Raises FetchError when
    the source is missing, is not a checkpoint, or cannot be resolved (`offline` and not pinned).
    """
    context = Context(root, statcache, lock, _asked(source_format), offline, partial, have, manifest, refused)
    return source_kind(source.kind).observe(source.spec, context)


def fetch(
    params: Mapping[str, Any],
    hints: Mapping[str, Any],
    out: Path,
    scratch: Path,
    progress: Progress,
    keep: Keep | None = None,
) -> None:
    """Put the files of an observed source into `out`.  Raises FetchError, StoreError, ToolchainError or UsageError.

    Files with a known SHA-256 that lie in the directory of blobs `hints["have"]` are not downloaded; what arrives is verified
    against `hints["files"]`, the lock file's promises.  Large files of this machine are passed to `keep`, when it is given.
    """
    from llmbuild.sources.shape import ShapeError, check_fetch

    try:
        check_fetch(params, hints)
    except ShapeError as error:
        raise StoreError(
            "the record of a fetch is damaged", why=str(error), fix="run `llmbuild build`, which records it anew"
        ) from error
    kind = source_kind(params["source"]["kind"])
    if keep is None:
        kind.fetch(params, hints, out, scratch, progress)
    else:
        kind.take(params, hints, out, scratch, progress, keep)


def size(params: Mapping[str, Any], hints: Mapping[str, Any]) -> int | None:
    """The size in bytes of an observed source; None where only a fetch determines it.  One response is awaited; a build reports
    what is wrong with it."""
    try:
        return source_kind(params["source"]["kind"]).size(params, hints)
    except (OSError, FetchError):
        return None


def _asked(source_format: str | None) -> str | None:
    return None if source_format == "auto" else source_format
