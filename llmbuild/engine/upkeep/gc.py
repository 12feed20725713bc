"""Collection: which traces to forget and which blobs to remove, so that a store stays within a size and an age.

Deciding is pure (`choose`).  Doing it beside running builds is safe without stopping them:

- What was used or written after the horizon stays.  The horizon is `grace` before now, and before the start of the
  oldest process that writes to the store.
- A build marks a trace as used before it looks at it.  A trace is moved aside first and looked at then: if it was
  marked meanwhile, it goes back; if not, no build has seen it.
- A blob that was there already when a process wanted to write it is claimed by that process, under a lock that a
  collection has alone.
- Whatever is missed all the same is a miss, and is built again.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from llmbuild.canonical import Digest
from llmbuild.engine import files, fs
from llmbuild.engine.intermediates import IntermediateFacts
from llmbuild.engine.locks import FileLock, guard
from llmbuild.engine.store import Store
from llmbuild.engine.upkeep.survey import Living, Survey, TraceFacts, survey
from llmbuild.errors import StoreError

DAY = 86400.0


@dataclass(frozen=True, slots=True)
class Retention:
    """What may stay.  Sizes in bytes, times in seconds.

    Traces unused for longer than `max_age` go, roots excepted; then the least recently used ones until all that is stored has at
    most `max_size`, roots last of all.  Roots are the last results of projects built within `keep`.  None sets no limit:
    then only what nothing refers to goes.  Intermediate results go when nobody has used them for `keep`, or for `max_age` where
    that is less, and before any trace where the size is too large.
    """

    max_size: int | None = None
    max_age: float | None = None
    keep: float = 14 * DAY
    grace: float = 600.0


@dataclass(frozen=True, slots=True)
class Choice:
    """What a collection would do.  `traces` go in this order (`forced`: how many of them are roots); `blobs` go with
    them or were referred to by nothing, `intermediates` besides, `freed` bytes in all.  `left` bytes stay, `over` bytes
    above the wanted size."""

    traces: tuple[TraceFacts, ...]
    forced: int
    blobs: tuple[Digest, ...]
    freed: int
    left: int
    over: int
    intermediates: tuple[IntermediateFacts, ...] = ()


@dataclass(frozen=True, slots=True)
class Collected:
    """What a collection did, or with `dry_run` would do."""

    choice: Choice
    traces: int
    blobs: int
    freed: int
    left: int
    leftovers: int
    dry_run: bool = False

    @property
    def intermediates(self) -> int:
        return len(self.choice.intermediates)


def horizon(found: Survey, policy: Retention, now: float) -> float:
    """What was used or written from this time on is not touched."""
    return min((now, *found.writers)) - policy.grace


def choose(found: Survey, policy: Retention, now: float) -> Choice:
    """Decide from one look at a store.  Pure."""
    limit = horizon(found, policy, now)
    roots = {action for action, built in found.roots.items() if built >= now - policy.keep}
    candidates = sorted(
        (trace for trace in found.traces.values() if trace.used < limit and trace.action not in found.running),
        key=lambda trace: (trace.used, trace.action),
    )
    counts: Counter[Digest] = Counter()
    for trace in found.traces.values():
        counts.update(trace.refs)

    def removable(digest: Digest) -> bool:
        blob = found.blobs.get(digest)
        return blob is not None and digest not in found.pinned and blob.changed < limit

    removed: list[TraceFacts] = []
    blobs = [digest for digest in found.blobs if counts[digest] == 0 and removable(digest)]
    stored = found.size + found.intermediates_size
    left = stored - sum(found.blobs[digest].size for digest in blobs)
    intermediates: list[IntermediateFacts] = []
    oldest = now - (policy.keep if policy.max_age is None else min(policy.keep, policy.max_age))
    for one in sorted(found.intermediates, key=lambda one: (one.used, one.path)):
        too_much = policy.max_size is not None and left > policy.max_size
        if one.used < limit and (one.used < oldest or too_much):
            intermediates.append(one)
            left -= one.size

    def remove(trace: TraceFacts) -> None:
        nonlocal left
        removed.append(trace)
        counts.subtract(trace.refs)
        for digest in sorted(trace.refs):
            if counts[digest] == 0 and removable(digest):
                blobs.append(digest)
                left -= found.blobs[digest].size

    if policy.max_age is not None:
        for trace in candidates:
            if trace.action not in roots and trace.used < now - policy.max_age:
                remove(trace)
    forced = 0
    if policy.max_size is not None:
        gone = {trace.action for trace in removed}
        rest = [trace for trace in candidates if trace.action not in gone]
        for is_root in (False, True):
            for trace in rest:
                if left > policy.max_size and (trace.action in roots) is is_root:
                    remove(trace)
                    forced += is_root
    return Choice(
        traces=tuple(removed),
        forced=forced,
        blobs=tuple(sorted(blobs)),
        freed=stored - left,
        left=left,
        over=max(0, left - policy.max_size) if policy.max_size is not None else 0,
        intermediates=tuple(intermediates),
    )


def collect(
    store: Store, policy: Retention, living: Living, *, dry_run: bool = False, now: float | None = None
) -> Collected:
    """Collect, beside whatever else works on the store.  Raises StoreError when the store cannot be changed."""
    now = time.time() if now is None else now
    if dry_run:
        found = survey(store, living)
        choice = choose(found, policy, now)
        return Collected(
            choice, len(choice.traces), len(choice.blobs), choice.freed, choice.left, len(leftovers(store, now)), True
        )
    scratch = store.scratch()
    with guard(store.cas.guard_path, exclusive=True):
        found = survey(store, living)
        choice = choose(found, policy, now)
        limit = horizon(found, policy, now)
        gone = {trace.action for trace in choice.traces if _take_trace(store, trace.action, trace.used, scratch)}
        for action, used in found.damaged.items():
            if used < limit:
                _take_trace(store, action, used, scratch)
        referred = {ref for trace in found.traces.values() if trace.action not in gone for ref in trace.refs}
        # A build may have written a trace since we looked; it refers to new blobs and to claimed ones.
        blobs = [
            digest
            for digest, blob in found.blobs.items()
            if digest not in referred and digest not in found.pinned and blob.changed < limit
        ]
        for digest in blobs:
            store.cas.remove(digest)
        for digest, path in store.cas.places.all():
            if digest not in referred and digest not in found.pinned:
                with contextlib.suppress(FileNotFoundError):
                    if path.stat().st_mtime < limit:
                        store.cas.places.drop(digest)
        freed = sum(found.blobs[digest].size for digest in blobs)
        for one in choice.intermediates:
            with contextlib.suppress(OSError):
                files.remove_tree(one.path, store.root)
                freed += one.size
        _forget_tools(store)
    cleaned = store.clean_scratch()
    for path in leftovers(store, now):
        with contextlib.suppress(OSError):
            files.remove_tree(path, store.root)
            cleaned += 1
    _forget_records(store, found, gone, limit)
    left = found.size + found.intermediates_size - freed
    return Collected(choice, len(gone), len(blobs), freed, left, cleaned)


def leftovers(store: Store, now: float, age: float = 14 * DAY) -> list[Path]:
    """Logs of failures, unfinished downloads and unfinished work that nobody has touched for `age` seconds, and verdicts on
    checkpoints that are as old."""
    found: list[Path] = []
    for name in ("logs", "partial", "resume", "verdicts"):
        for path in sorted((store.root / name).glob("*")):
            with contextlib.suppress(OSError):
                newest = max((one.lstat().st_mtime for one in (path, *path.rglob("*"))), default=now)
                if newest < now - age:
                    found.append(path)
    return found


def _forget_tools(store: Store) -> None:
    """Remove the directories of tools that have no intermediate results any more."""
    for directory in store.intermediates_path.glob("*"):
        with contextlib.suppress(OSError):
            fs.current.rmdir(directory)


def _take_trace(store: Store, action: Digest, used: float, scratch: Path) -> bool:
    """Remove a trace unless a build has marked it since it was surveyed."""
    path = store.traces.path(action)
    aside = scratch / files.temporary_name()
    with fs.translate_errors("remove a trace", path):
        try:
            fs.current.replace(path, aside)
        except FileNotFoundError:
            return False
        if aside.stat().st_mtime != used:
            fs.current.replace(aside, path)
            return False
        fs.current.unlink(aside)
    return True


def _forget_records(store: Store, found: Survey, gone: set[Digest], limit: float) -> None:
    """Remove action records and lock files that belong to nothing any more.

    A record that some project built last stays, because it shows what changed since.
    """
    known = (set(found.traces) - gone) | found.remembered | found.running
    for path in sorted((store.root / "actions").glob("??/*.json")):
        with contextlib.suppress(OSError):
            if path.parent.name + path.stem not in known and path.stat().st_mtime < limit:
                files.remove_tree(path, store.root)
    for path in sorted((store.root / "locks").glob("*")):
        # What is no lock's file there is named by nobody and in nobody's way.
        with contextlib.suppress(OSError, StoreError):
            if path.name not in known and path.stat().st_mtime < limit:
                lock = FileLock(path)
                if lock.try_acquire("cleaning"):
                    lock.release(remove=True)
