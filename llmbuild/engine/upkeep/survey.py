"""The contents of a store: every blob, every trace with what it refers to, and what the projects built last.

Reads only, apart from what every reader does: a tree blob that turns out to be corrupt is dropped.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from llmbuild.canonical import Digest, known_digest
from llmbuild.engine.action import TreeInput
from llmbuild.engine.cas import CLAIMS
from llmbuild.engine.history import read_history
from llmbuild.engine.intermediates import IntermediateFacts, intermediate_files
from llmbuild.engine.locks import FileLock, is_held
from llmbuild.engine.store import Store
from llmbuild.engine.trace import Trace
from llmbuild.errors import StoreError

Living: TypeAlias = Callable[[str], Container[str] | None]
"""What is left of a project: the labels that its manifest has today, or None when the manifest is gone."""


@dataclass(frozen=True, slots=True)
class BlobFacts:
    """A blob's size in bytes, when it came or was last linked (seconds since the epoch), and how many names it has."""

    size: int
    changed: float
    links: int


@dataclass(frozen=True, slots=True)
class TraceFacts:
    """A trace, its last use (seconds since the epoch), and the digests of all blobs that it refers to."""

    action: Digest
    kind: str
    label: str
    project: str
    output: Digest
    output_size: int
    used: float
    refs: frozenset[Digest]


@dataclass(frozen=True, slots=True)
class Survey:
    """One look at a store.

    `damaged` are traces that cannot be read, with their file's mtime.  `roots` are the last actions of living projects
    with the time of the project's last build; `remembered` those of all projects.  `running` are the actions whose lock
    is held, `pinned` the blobs that those read or that a process has claimed, `writers` the times at which the processes
    that write to the store now began to.  `intermediates` are the files of intermediate results.
    """

    blobs: Mapping[Digest, BlobFacts]
    traces: Mapping[Digest, TraceFacts]
    damaged: Mapping[Digest, float] = field(default_factory=dict)
    roots: Mapping[Digest, float] = field(default_factory=dict)
    remembered: frozenset[Digest] = frozenset()
    running: frozenset[Digest] = frozenset()
    pinned: frozenset[Digest] = frozenset()
    writers: tuple[float, ...] = ()
    intermediates: tuple[IntermediateFacts, ...] = ()

    @property
    def size(self) -> int:
        """Bytes in all blobs."""
        return sum(blob.size for blob in self.blobs.values())

    @property
    def intermediates_size(self) -> int:
        """Bytes in all intermediate results."""
        return sum(one.size for one in self.intermediates)


def survey(store: Store, living: Living = lambda _project: None) -> Survey:
    """Look at a whole store.  Raises StoreError when it cannot be read."""
    # Claims come first: whoever gives one up after this has written the trace that replaces it.
    writers, claims = _writers(store)
    traces: dict[Digest, TraceFacts] = {}
    damaged: dict[Digest, float] = {}
    for action in store.traces.names():
        try:
            used = store.traces.path(action).stat().st_mtime
        except OSError:
            continue
        trace = store.traces.get(action)
        if trace is None:
            damaged[action] = used
        else:
            traces[action] = facts_of(store, trace, used)
    roots, remembered = _roots(store, living)
    running = running_actions(store)
    return Survey(
        blobs=dict(blob_files(store)),
        traces=traces,
        damaged=damaged,
        roots=roots,
        remembered=remembered,
        running=running,
        pinned=claims.union(*(_inputs(store, action) for action in running)),
        writers=writers,
        intermediates=tuple(intermediate_files(store.intermediates_path)),
    )


def facts_of(store: Store, trace: Trace, used: float) -> TraceFacts:
    """What a trace refers to: its output, the log, and the small blobs that record what it was made from."""
    refs = {trace.output, *_named(trace.key.get("inputs")), *_named(trace.key.get("tools"))}
    if trace.log is not None:
        refs.add(trace.log)
    with contextlib.suppress(StoreError):
        refs.update(entry.digest for entry in store.cas.get_tree(trace.output).files)
    return TraceFacts(
        trace.action, trace.kind, trace.label, trace.project, trace.output, trace.output_size, used, frozenset(refs)
    )


def blob_files(store: Store) -> Iterator[tuple[Digest, BlobFacts]]:
    """Every file that is named as a blob, in no order."""
    for directory, name, status in _entries(store.cas.root):
        digest = known_digest(directory + name)
        if digest is not None and stat.S_ISREG(status.st_mode):
            yield digest, BlobFacts(status.st_size, max(status.st_mtime, status.st_ctime), status.st_nlink)


def running_actions(store: Store) -> frozenset[Digest]:
    """The actions whose lock is held by some process."""
    locks = ((known_digest(path.name), path) for path in (store.root / "locks").glob("*"))
    return frozenset(action for action, path in locks if action is not None and is_held(path))


def _entries(root: Path) -> Iterator[tuple[str, str, os.stat_result]]:
    with contextlib.suppress(FileNotFoundError), os.scandir(root) as directories:
        for directory in directories:
            if not directory.is_dir(follow_symlinks=False):
                continue
            with os.scandir(directory.path) as entries:
                for entry in entries:
                    # A build beside us may take one away.
                    with contextlib.suppress(FileNotFoundError):
                        yield directory.name, entry.name, entry.stat(follow_symlinks=False)


def _named(value: object) -> set[Digest]:
    """The digests among the values of an action's inputs or tools."""
    found: set[Digest] = set()
    for one in value.values() if isinstance(value, Mapping) else ():
        digest = known_digest(one.get("digest") if isinstance(one, Mapping) else one)
        if digest is not None:
            found.add(digest)
    return found


def _roots(store: Store, living: Living) -> tuple[dict[Digest, float], frozenset[Digest]]:
    roots: dict[Digest, float] = {}
    remembered: set[Digest] = set()
    for path in sorted((store.root / "projects").glob("*.json")):
        try:
            built = path.stat().st_mtime
            project, last = read_history(path)
        except (OSError, ValueError):
            # A history that cannot be read counts for nothing; the next build of its project writes it again.
            continue
        remembered.update(last.values())
        labels = living(project)
        for label, action in last.items():
            if labels is not None and label in labels:
                roots[action] = max(built, roots.get(action, 0.0))
    return roots, frozenset(remembered)


def _inputs(store: Store, action: Digest) -> set[Digest]:
    """What a running action reads: the blobs of its inputs and all files of their trees."""
    found: set[Digest] = set()
    try:
        inputs = store.get_action(action).action.inputs.values()
    except StoreError:
        return found
    for value in inputs:
        if not isinstance(value, TreeInput):
            found.add(value.blob)
            continue
        found.add(value.tree)
        with contextlib.suppress(StoreError):
            found.update(entry.digest for entry in store.cas.get_tree(value.tree).files)
    return found


def _writers(store: Store) -> tuple[tuple[float, ...], frozenset[Digest]]:
    """When each other process that writes to the store began to, and the blobs that any of them claims."""
    starts: list[float] = []
    claims: set[Digest] = set()
    for path in sorted((store.root / "scratch").glob("*.lock")):
        owner = FileLock(path).owner()
        if not is_held(path):
            continue
        with contextlib.suppress(OSError):
            if owner is None or owner.pid != os.getpid():
                starts.append(path.stat().st_mtime)
            lines = (path.with_suffix("") / CLAIMS).read_text("ascii", "replace").split()
            claims.update(claimed for line in lines if (claimed := known_digest(line)) is not None)
    return tuple(sorted(starts)), frozenset(claims)
