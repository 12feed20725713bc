"""Removing what llmbuild put into a project: the results of a manifest, and its records in `.llmbuild`.

The user's files stay: a file that llmbuild did not write, or that was edited since.  The store stays too, so that a build puts
all of it back without running a task.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from llmbuild.engine import fs, installed
from llmbuild.engine.deciding import Asker, decide
from llmbuild.engine.install import RECORD, install
from llmbuild.engine.locks import FileLock
from llmbuild.engine.store import Store
from llmbuild.errors import UsageError
from llmbuild.workspace.manifests import known_manifests, project_file
from llmbuild.workspace.place import MANIFEST, STATE_DIR, owns_state, state_of
from llmbuild.workspace.recording import LAST_BUILD, is_building

_SHARED = (RECORD.name, "lock-file.json")
"""The records of all manifests of a directory together."""


@dataclass(frozen=True, slots=True)
class Cleaned:
    """What was removed, or would be: the results with the bytes that they have in all, and the records; `kept` are results that
    the user edited, which stay recorded as results.  The paths are relative to the project."""

    removed: tuple[str, ...]
    size: int
    kept: tuple[str, ...]
    records: tuple[str, ...]


def clean(manifest: Path, store: Store, *, dry_run: bool = False) -> Cleaned:
    """Remove the results and the records of a manifest.  The manifest itself is not read, so that it may be wrong.  What one left
    that is gone, or has another name now, goes as well where no other manifest is there.

    Raises UsageError while a build of the manifest runs, and StoreError where something cannot be removed."""
    root, name = manifest.absolute().parent, manifest.name
    if not dry_run and is_building(root, name):
        raise UsageError(
            "a build of this manifest is running", where=str(manifest), fix="wait until it has ended, or stop it"
        )
    others = {other for other in known_manifests(root, store.seal) if other != name}
    record = installed.load(root)
    adopted = {} if others else _of_gone_manifests(root, record, name)
    record.files |= adopted
    decision = decide(store, root, {}, record, Asker(name, frozenset(), frozenset(), lambda: not others))
    shared = [] if others else [one for one in _SHARED if one != RECORD.name or not decision.report.kept]
    found = Cleaned(
        tuple(decision.obsolete),
        sum((root / path).lstat().st_size for path in decision.obsolete),
        tuple(decision.report.kept),
        tuple(sorted(path.relative_to(root).as_posix() for path in _records(root, name, shared))),
    )
    if dry_run:
        return found
    if decision.obsolete or decision.gone:
        _record(root, adopted, record.outputs)
        outputs = sorted(record.outputs)
        install(store, root, [], known=(), manifest=name, output=outputs[0], alone=lambda: not others)
        # Without them a build would take these files for the user's, and refuse to replace them.
        _record(root, {path: record.files[path] for path in decision.report.kept}, record.outputs)
    _remove_records(root, name, shared)
    return found


def _of_gone_manifests(root: Path, record: installed.Record, name: str) -> dict[str, installed.InstalledFile]:
    """The entries of manifests that are not there any more, as entries of another."""
    return {
        path: one._replace(manifest=name)
        for path, one in record.files.items()
        if one.manifest not in (None, name) and not (root / str(one.manifest)).is_file()
    }


def _record(root: Path, entries: Mapping[str, installed.InstalledFile], outputs: Collection[str]) -> None:
    """Put entries into the record of what was installed in the directories `outputs`."""
    if entries:
        with _locked(root):
            record = installed.load(root, outputs)
            record.files |= entries
            installed.save(root, record)


def _records(root: Path, name: str, shared: Collection[str]) -> Iterator[Path]:
    """The files that llmbuild keeps about a manifest, and those of these names about all of a directory."""
    state = state_of(root, name)
    if owns_state(root, state / "logs"):
        yield from (path for path in state.glob("last-build*.ndjson") if _is_record(path))
        yield from (state / "logs").glob("*.log")
    yield from filter(Path.is_file, [project_file(root, name), *(root / STATE_DIR / one for one in shared)])


def _is_record(path: Path) -> bool:
    return path.name == LAST_BUILD or path.name.endswith(".partial.ndjson")


@contextlib.contextmanager
def _locked(root: Path, *, last: bool = False) -> Iterator[None]:
    """Hold the lock of a project's results, which a build has while it writes them.  The `last` user takes its file away."""
    lock = FileLock(root / STATE_DIR / "lock", fs.PROJECT)
    lock.acquire("clean", poll=lambda _owner: time.sleep(0.02))
    try:
        yield
    finally:
        lock.release(remove=last)


def _remove_records(root: Path, name: str, shared: Collection[str]) -> None:
    state, own = root / STATE_DIR, state_of(root, name)
    if not state.is_dir():
        return
    with _locked(root, last=RECORD.name in shared):
        for path in list(_records(root, name, shared)):
            with fs.translate_errors("remove a record", path, fs.PROJECT):
                path.unlink(missing_ok=True)
    directories = [own / "logs"] + ([own, own.parent] if name != MANIFEST else []) + [state]
    for directory in directories:
        # What is not llmbuild's keeps its directory.
        with contextlib.suppress(OSError):
            directory.rmdir()
