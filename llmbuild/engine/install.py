"""Linking outputs into the project: `dist/` shows what the store holds, and nothing else of the user's is touched.

`.llmbuild/installed.json` in the project records which files llmbuild put there, with digest and stat.  It makes the second
build cheap (one stat a file), detects an edited or deleted file so that it is restored, and distinguishes llmbuild's files from
the user's: a file that is not in the record is never replaced or removed.  The record is written before the files with all that
is intended, so that files of a build that was killed in between are still recognized.

Each file belongs to the manifest that made it.  Two manifests of one directory leave each other's files alone.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from llmbuild.canonical import digest_file
from llmbuild.engine import deciding, files, fs, installed
from llmbuild.engine.deciding import Asker, Decision, Installation, InstallReport, Wanted, destinations
from llmbuild.engine.installed import RECORD, InstalledFile, Record, beneath
from llmbuild.engine.locks import FileLock
from llmbuild.engine.store import Store
from llmbuild.engine.verified import stamp_of
from llmbuild.errors import LlmbuildError, StoreError

if TYPE_CHECKING:
    from llmbuild.engine import placing

__all__ = ["RECORD", "InstallReport", "Installation", "inspect", "install", "require_unclaimed"]

MANIFEST = "buildfile.toml"


def install(
    store: Store,
    project_root: Path,
    items: Sequence[Installation],
    *,
    known: Collection[str] | None = None,
    manifest: str = MANIFEST,
    output: str = "dist",
    alone: Callable[[], bool] = lambda: True,
) -> InstallReport:
    """Make the project's files match `items`, for a manifest (its file name) that writes to `output`.

    Files that an earlier build of the manifest installed for one of these tasks and that are no longer part of its output are
    removed; with `known` (the labels of all tasks of the manifest) also those of tasks that no longer exist.  `alone` returns
    whether no other manifest of the directory is known; it is called where a record of an older llmbuild does not name a file's
    manifest.

    Raises UsageError when two items or two manifests claim one path or a path leaves the project; StoreError when a file
    that llmbuild did not write is in the way, or the disk cannot be written; MissingBlobError.
    """
    wanted = deciding.collect(items)
    lock = FileLock(project_root / RECORD.parent / "lock", fs.PROJECT)
    lock.acquire("install", poll=lambda _owner: time.sleep(0.02))
    try:
        asker = Asker(manifest, frozenset(item.label for item in items), known, alone)
        return _install(store, project_root, wanted, asker, output)
    finally:
        lock.release()


def require_unclaimed(project_root: Path, items: Collection[str], manifest: str, output: str) -> None:
    """Raise UsageError when another manifest has put files where this one would put results (`items`, their paths)."""
    deciding.require_unclaimed(project_root, installed.load(project_root, (output,)), items, manifest)


def _install(store: Store, root: Path, wanted: dict[str, Wanted], asker: Asker, output: str) -> InstallReport:
    record = installed.load(root, (output,))
    deciding.require_unclaimed(root, record, {one.dest for one in wanted.values()}, asker.manifest)
    repaired = _repair(root, wanted, record)
    decision = deciding.decide(store, root, wanted, record, asker)
    before = record.copy()
    for path in decision.gone:
        del record.files[path]
    if not decision.stale and not decision.obsolete:
        if decision.news or decision.gone or repaired:
            _settle(store, root, wanted, asker, record, decision.news)
            installed.save(root, record)
        return decision.report

    # Where nobody else writes such files, those of an install that failed have no use.
    for directory in {Path(path).parent for path in (*decision.stale, *(wanted[path].dest for path in decision.stale))}:
        _clean_temporaries(root / directory, ())
    for path, previous in decision.stale.items():
        one = wanted[path]
        record.files[path] = InstalledFile(one.entry.digest, one.label, asker.manifest, None, previous)
    beside = _beside(root, wanted, record)
    installed.save(root, record)
    steps = _prepare(store, root, wanted, record, decision, before)
    _commit(root, steps)
    for path in decision.obsolete:
        del record.files[path]
    record.moving.clear()
    decision.report.removed += decision.obsolete
    _settle(store, root, wanted, asker, record, (*decision.right, *decision.stale))
    for path in beside:
        with contextlib.suppress(FileNotFoundError):
            _settle_one(store, root, path, record)
    installed.save(root, record)
    return decision.report


def _prepare(
    store: Store, root: Path, wanted: dict[str, Wanted], record: Record, decision: Decision, before: Record
) -> list[placing.Step]:
    """Prepare all changes.  Where that fails nothing has changed, the record included."""
    # A build that has nothing to do needs no part of this.
    from llmbuild.engine import placing

    steps: list[placing.Step] = []
    where = root
    try:
        for group in _groups(root, wanted, record, decision):
            where = root / group.dest
            steps.append(placing.prepare(store.cas, root, group, wanted))
        exchanges = [step for step in steps if isinstance(step, placing.Whole) and not step.new]
        if exchanges:
            record.moving = {step.prepared: installed.Moving(step.directory, step.inode) for step in exchanges}
            # Without this record a later build could not recognize a file of the user's in the old directory.
            installed.save(root, record, durable=True)
        return steps
    except (OSError, LlmbuildError) as error:
        for step in steps:
            step.discard()
        with contextlib.suppress(StoreError):
            installed.save(root, before)
        if isinstance(error, OSError):
            raise fs.store_error(error, "write an output", where, fs.OUTPUT) from error
        raise


def _commit(root: Path, steps: Sequence[placing.Step]) -> None:
    for at, step in enumerate(steps):
        try:
            step.commit()
        except OSError as error:
            for rest in steps[at:]:
                rest.discard()
            raise fs.store_error(error, "put an output in its place", error.filename or root, fs.OUTPUT) from error


def _groups(root: Path, wanted: dict[str, Wanted], record: Record, decision: Decision) -> list[placing.Group]:
    """The changes by the result that they belong to; what is obsolete and belongs to none, by its directory."""
    from llmbuild.engine import placing

    dests = frozenset(one.dest for one in wanted.values())
    groups: dict[str, placing.Group] = {}

    def group(dest: str) -> placing.Group:
        if dest not in groups:
            whole = dest in dests and not any(other.startswith(f"{dest}/") for other in dests)
            groups[dest] = placing.Group(dest, [], [], [], whole)
        return groups[dest]

    for path in decision.stale:
        group(wanted[path].dest).stale.append(path)
    for path in decision.obsolete:
        group(beneath(path, dests) or path.rpartition("/")[0]).removed.append(path)
    changed = {*decision.stale, *decision.obsolete}
    for path in (*wanted, *record.files):
        dest = beneath(path, groups)
        if dest is None or path in changed or path in groups[dest].again or not placing.is_read_first(path):
            continue
        if (root / path).is_file():
            groups[dest].again.append(path)
    return list(groups.values())


def _beside(root: Path, wanted: dict[str, Wanted], record: Record) -> list[str]:
    """Files of other tasks among the results that are as they were left: they get another stat where they are linked anew."""
    dests = frozenset(one.dest for one in wanted.values())
    found = []
    for path, one in record.files.items():
        if path not in wanted and one.stamp is not None and beneath(path, dests) is not None:
            with contextlib.suppress(OSError):
                if stamp_of((root / path).lstat()) == one.stamp:
                    found.append(path)
    return found


def _settle(
    store: Store, root: Path, wanted: dict[str, Wanted], asker: Asker, record: Record, paths: Collection[str]
) -> None:
    """Record files as they lie there now."""
    for path in paths:
        one = wanted[path]
        record.files[path] = InstalledFile(one.entry.digest, one.label, asker.manifest)
        # Where somebody was quicker than us, the next build puts it back.
        with contextlib.suppress(FileNotFoundError):
            _settle_one(store, root, path, record)


def _settle_one(store: Store, root: Path, path: str, record: Record) -> None:
    one = record.files.get(path)
    if one is not None:
        status = (root / path).lstat()
        record.files[path] = InstalledFile(one.digest, one.label, one.manifest, stamp_of(status))
        store.cas.remember_link(one.digest, status)


def _repair(root: Path, wanted: dict[str, Wanted], record: Record) -> bool:
    """End the exchanges of an install that was killed, and remove its temporary files; whether there was an exchange."""
    for name, moving in record.moving.items():
        old, now = root / name, root / moving.directory
        with fs.translate_errors("put an output in its place", old, fs.OUTPUT):
            try:
                status = old.lstat()
            except FileNotFoundError:
                continue
            if not stat.S_ISDIR(status.st_mode):
                continue
            if status.st_ino == moving.inode:
                # It was prepared and has not taken its place.
                files.remove_tree(old, root)
            elif _inode(now) == moving.inode:
                from llmbuild.engine import placing

                placing.merge(old, now, partial(_was_ours, root, name, moving, record))
    ours = frozenset(Path(path).parent for path in wanted)
    unsettled = {above for path, one in record.files.items() if one.stamp is None for above in Path(path).parents}
    for directory in unsettled:
        if directory in ours or not deciding.through_link(root, f"{directory}/x"):
            _clean_temporaries(root / directory, {root / name for name in record.moving})
    exchanged = bool(record.moving)
    record.moving.clear()
    return exchanged


def _inode(directory: Path) -> int | None:
    """The inode of a directory that is no link; nobody can write it into a record beforehand."""
    with contextlib.suppress(OSError):
        status = directory.lstat()
        if stat.S_ISDIR(status.st_mode):
            return status.st_ino
    return None


def _was_ours(root: Path, name: str, moving: installed.Moving, record: Record, file: str, there: bool) -> bool:
    """Whether a file in the old one of two exchanged directories is llmbuild's, and has no use any more."""
    one = record.files.get(f"{moving.directory}/{file}")
    return one is not None and (there or digest_file(root / name / file) in (one.digest, one.previous))


def _clean_temporaries(directory: Path, kept: Collection[Path]) -> None:
    """Remove what a killed install left beside its files."""
    with contextlib.suppress(OSError):
        for path in directory.glob(f"{files.TEMPORARY}*"):
            if path not in kept:
                files.remove_tree(path, directory)


def inspect(project_root: Path, items: Sequence[Installation]) -> list[tuple[str, str, str]]:
    """What `install` would put back, as (label, path, "missing" or "changed").  Reads only; raises StoreError."""
    record = installed.load(project_root, (item.install.dest for item in items))
    wrong: list[tuple[str, str, str]] = []
    for item in items:
        for entry, path in destinations(item):
            file = project_root / path
            known = record.files.get(path)
            try:
                status = os.lstat(file)
            except (FileNotFoundError, NotADirectoryError):
                wrong.append((item.label, path, "missing"))
                continue
            except OSError as error:
                raise fs.store_error(error, "look at an output file", file, fs.OUTPUT) from error
            if known is not None and known.digest == entry.digest and known.stamp == stamp_of(status):
                continue
            with fs.translate_errors("read an output file", file, fs.OUTPUT):
                if not stat.S_ISREG(status.st_mode) or digest_file(file) != entry.digest:
                    wrong.append((item.label, path, "changed"))
    return wrong
