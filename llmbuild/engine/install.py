"""Linking outputs into the project: `dist/` shows what the store holds, and nothing else of the user's is touched.

`.llmbuild/installed.json` in the project records which files llmbuild put there, with digest and stat.  It makes the
second build cheap (one stat a file), lets an edited or deleted file be noticed and restored, and is what tells
llmbuild's files from the user's: a file that is not in the record is never replaced or removed.  The record is written
before the files with all that is intended, so that a build that was killed in between still knows its own.
"""

from __future__ import annotations

import contextlib
import json
import stat
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from llmbuild.canonical import Digest, canonical_json, digest_file, parse_digest
from llmbuild.engine import files, fs
from llmbuild.engine.locks import FileLock
from llmbuild.engine.store import Store
from llmbuild.engine.task import Install
from llmbuild.engine.tree import FileEntry, Tree
from llmbuild.engine.verified import Stamp, stamp_of
from llmbuild.errors import LlmbuildError, MultiError, StoreError, UsageError

RECORD = Path(".llmbuild") / "installed.json"


@dataclass(frozen=True, slots=True)
class Installation:
    """One install of a built task: which part of its output goes where."""

    label: str
    tree: Tree
    install: Install


@dataclass(slots=True)
class InstallReport:
    """What an install did, as paths relative to the project.

    `restored` are files that had been edited or deleted since they were installed; `kept` are files that no longer
    belong but were edited by the user, and so were left alone.
    """

    written: list[str] = field(default_factory=list)
    restored: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    unchanged: int = 0


@dataclass(frozen=True, slots=True)
class _Installed:
    digest: Digest
    owner: str
    stamp: Stamp | None
    previous: Digest | None = None
    """What was at the path before, while an install is under way: either content is llmbuild's own."""


@dataclass(frozen=True, slots=True)
class _Wanted:
    entry: FileEntry
    owner: str


def install(
    store: Store, project_root: Path, items: Sequence[Installation], *, known: Collection[str] | None = None
) -> InstallReport:
    """Make the project's files be what `items` say.

    Files that an earlier build installed for one of these tasks and that are no longer part of its output are removed;
    with `known` (the labels of all tasks of the manifest) also those of tasks that no longer exist.  Raises UsageError
    when two items claim one path with different content or a path leaves the project; StoreError when a file that
    llmbuild did not write is in the way, or the disk cannot be written; MissingBlobError.
    """
    wanted = _collect(items)
    lock = FileLock(project_root / RECORD.parent / "lock")
    lock.acquire("install", poll=lambda _owner: time.sleep(0.02))
    try:
        return _install(store, project_root, wanted, {item.label for item in items}, known)
    finally:
        lock.release()


def _install(
    store: Store, project_root: Path, wanted: dict[str, _Wanted], labels: set[str], known: Collection[str] | None
) -> InstallReport:
    record_path = project_root / RECORD
    record = _load(record_path)
    # An entry without a stat is what an install that was killed left: its temporary files may lie about.
    _clean_temporaries({(project_root / path).parent for path, one in record.items() if one.stamp is None})
    report = InstallReport()
    obsolete = {
        path: one
        for path, one in record.items()
        if path not in wanted and (one.owner in labels or (known is not None and one.owner not in known))
    }
    stale = _find_stale(store, project_root, wanted, record, report)
    changed_owners = {
        path: one.owner for path, one in wanted.items() if path in record and record[path].owner != one.owner
    }
    if not stale and not obsolete and not changed_owners:
        if report.unchanged and any(record[path].stamp is None for path in wanted):
            _settle(project_root, wanted, record)
            _save(record_path, record)
        return report

    for path in stale:
        before = record.get(path)
        record[path] = _Installed(
            wanted[path].entry.digest, wanted[path].owner, None, before.digest if before is not None else None
        )
    _save(record_path, record)
    for path in stale:
        entry = wanted[path].entry
        store.cas.link_out(entry.digest, project_root / path, entry.executable)
    for path, one in sorted(obsolete.items()):
        _remove(project_root, path, one, report)
        del record[path]
    _settle(project_root, wanted, record)
    _save(record_path, record)
    return report


def _collect(items: Sequence[Installation]) -> dict[str, _Wanted]:
    wanted: dict[str, _Wanted] = {}
    errors: list[LlmbuildError] = []
    for item in items:
        found = False
        for entry, path in _destinations(item):
            found = True
            if Path(path).is_absolute() or ".." in Path(path).parts:
                errors.append(UsageError("an output path leaves the project", where=path, why=f"it is of {item.label}"))
                continue
            other = wanted.get(path)
            if other is not None and (other.entry.digest, other.entry.executable) != (entry.digest, entry.executable):
                errors.append(
                    UsageError(
                        "two tasks claim the same output file with different content",
                        where=path,
                        why=f"{other.owner} and {item.label} both write it",
                        fix="give the models, quantizations or platforms different names",
                    )
                )
            elif other is None:
                wanted[path] = _Wanted(entry, item.label)
        if not found and item.install.source:
            errors.append(StoreError(f"{item.label} did not produce {item.install.source}", where=item.install.dest))
    for path in sorted(wanted):
        above = next((str(p) for p in Path(path).parents if str(p) in wanted), None)
        if above is not None:
            errors.append(UsageError("an output file is in the way of an output directory", where=above))
    if errors:
        raise errors[0] if len(errors) == 1 else MultiError(errors)
    return dict(sorted(wanted.items()))


def _destinations(item: Installation) -> list[tuple[FileEntry, str]]:
    """The files of an install with their paths in the project: `source` is "" (all), one file, or a directory."""
    source, dest = item.install.source.rstrip("/"), item.install.dest.rstrip("/")
    if not source:
        return [(entry, f"{dest}/{entry.path}" if dest else entry.path) for entry in item.tree.files]
    exact = [(entry, dest) for entry in item.tree.files if entry.path == source]
    below = [entry for entry in item.tree.files if entry.path.startswith(f"{source}/")]
    return exact or [(entry, dest + entry.path[len(source) :]) for entry in below]


def _find_stale(
    store: Store, root: Path, wanted: dict[str, _Wanted], record: dict[str, _Installed], report: InstallReport
) -> list[str]:
    """The wanted paths whose file is not what it should be; refuses to replace what llmbuild did not write."""
    stale: list[str] = []
    foreign: list[LlmbuildError] = []
    for path, one in wanted.items():
        known = record.get(path)
        file = root / path
        try:
            status = file.lstat()
        except (FileNotFoundError, NotADirectoryError):
            stale.append(path)
            (report.written if known is None else report.restored).append(path)
            continue
        if known is not None and known.digest == one.entry.digest and known.stamp == stamp_of(status):
            report.unchanged += 1
            continue
        with fs.translate_errors("read an output file", file):
            regular = stat.S_ISREG(status.st_mode)
            # A hard link to a verified blob shares its stat; linking the blob elsewhere changed the ctime of both.
            linked = store.cas.memo.holds(one.entry.digest, stamp_of(status))
            right = regular and (linked or digest_file(file) == one.entry.digest)
            right = right and bool(status.st_mode & 0o100) == one.entry.executable
        if right:
            # The content is what it should be, whoever put it there; from now on it is known.
            report.unchanged += 1
            record[path] = _Installed(one.entry.digest, one.owner, None)
        elif known is not None and not stat.S_ISDIR(status.st_mode):
            stale.append(path)
            edited = known.digest == one.entry.digest and known.stamp is not None
            (report.restored if edited else report.written).append(path)
        else:
            foreign.append(
                StoreError(
                    "a file that llmbuild did not write is in the way of an output",
                    where=str(file),
                    fix="move it away or delete it, then build again",
                )
            )
    if foreign:
        raise foreign[0] if len(foreign) == 1 else MultiError(foreign)
    return stale


def _remove(root: Path, path: str, one: _Installed, report: InstallReport) -> None:
    file = root / path
    try:
        status = file.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return
    with fs.translate_errors("remove an output file", file):
        own = stat.S_ISREG(status.st_mode) and (
            one.stamp == stamp_of(status) or digest_file(file) in (one.digest, one.previous)
        )
        if not own:
            report.kept.append(path)
            return
        fs.current.unlink(file)
        report.removed.append(path)
        for directory in Path(path).parents:
            if str(directory) == ".":
                break
            try:
                fs.current.rmdir(root / directory)
            except OSError:
                # It is not empty, or not ours to remove.
                break


def _settle(root: Path, wanted: dict[str, _Wanted], record: dict[str, _Installed]) -> None:
    for path, one in wanted.items():
        with contextlib.suppress(FileNotFoundError):
            record[path] = _Installed(one.entry.digest, one.owner, stamp_of((root / path).lstat()))


def _clean_temporaries(directories: set[Path]) -> None:
    """Remove what a killed install left beside its files."""
    for directory in directories:
        with contextlib.suppress(OSError):
            for path in directory.glob(f"{files.TEMPORARY}*"):
                fs.current.unlink(path)


def _load(path: Path) -> dict[str, _Installed]:
    try:
        rows = json.loads(path.read_bytes())
        result = {}
        for name, (digest, owner, stamp, previous) in rows.items():
            inode_size_times = (int(stamp[0]), int(stamp[1]), int(stamp[2]), int(stamp[3])) if stamp else None
            result[str(name)] = _Installed(parse_digest(digest), str(owner), inode_size_times, previous)
        return result
    except (OSError, ValueError, TypeError, AttributeError, IndexError):
        return {}


def _save(path: Path, record: dict[str, _Installed]) -> None:
    rows = {name: [one.digest, one.owner, one.stamp, one.previous] for name, one in record.items()}
    files.write_atomic(path, canonical_json(rows))


def inspect(project_root: Path, items: Sequence[Installation]) -> list[tuple[str, str, str]]:
    """What `install` would have to put back, as (label, path, "missing" or "changed").  Reads only; raises StoreError."""
    record = _load(project_root / RECORD)
    wrong: list[tuple[str, str, str]] = []
    for item in items:
        for entry, path in _destinations(item):
            file = project_root / path
            known = record.get(path)
            try:
                status = file.lstat()
            except (FileNotFoundError, NotADirectoryError):
                wrong.append((item.label, path, "missing"))
                continue
            if known is not None and known.digest == entry.digest and known.stamp == stamp_of(status):
                continue
            with fs.translate_errors("read an output file", file):
                if not stat.S_ISREG(status.st_mode) or digest_file(file) != entry.digest:
                    wrong.append((item.label, path, "changed"))
    return wrong
