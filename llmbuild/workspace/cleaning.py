"""Removing what llmbuild put into a project: the results of a manifest, and its records in `.llmbuild`.

The user's files stay: a file that llmbuild did not write, or that was edited since.  The store stays too, so that a build puts
all of it back without running a task.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from llmbuild.engine import fs, installed
from llmbuild.engine.deciding import Asker, decide
from llmbuild.engine.install import install
from llmbuild.engine.locks import FileLock
from llmbuild.engine.store import Store
from llmbuild.workspace.manifests import known_manifests, project_file
from llmbuild.workspace.place import MANIFEST, STATE_DIR, owns_state, state_of
from llmbuild.workspace.recording import LAST_BUILD

_SHARED = ("installed.json", "lock-file.json")
"""The records of all manifests of a directory together."""


@dataclass(frozen=True, slots=True)
class Cleaned:
    """What was removed, or would be: the results with the bytes that they have in all, and the records; `kept` are results that
    the user edited.  The paths are relative to the project."""

    removed: tuple[str, ...]
    size: int
    kept: tuple[str, ...]
    records: tuple[str, ...]


def clean(manifest: Path, store: Store, *, dry_run: bool = False) -> Cleaned:
    """Remove the results and the records of a manifest.  The manifest itself is not read, so that it may be wrong.

    Raises StoreError where something cannot be removed."""
    root, name = manifest.absolute().parent, manifest.name
    others = {other for other in known_manifests(root, store.seal) if other != name}
    decision = decide(store, root, {}, installed.load(root), Asker(name, frozenset(), frozenset(), lambda: not others))
    found = Cleaned(
        tuple(decision.obsolete),
        sum((root / path).lstat().st_size for path in decision.obsolete),
        tuple(decision.report.kept),
        tuple(sorted(path.relative_to(root).as_posix() for path in _records(root, name, alone=not others))),
    )
    if dry_run:
        return found
    if decision.obsolete or decision.gone:
        outputs = sorted(installed.load(root).outputs)
        install(store, root, [], known=(), manifest=name, output=outputs[0], alone=lambda: not others)
    _remove_records(root, name, alone=not others)
    return found


def _records(root: Path, name: str, *, alone: bool) -> Iterator[Path]:
    """The files that llmbuild keeps about a manifest, and those about all where there is no other one."""
    state = state_of(root, name)
    if owns_state(root, state / "logs"):
        yield from (path for path in state.glob("last-build*.ndjson") if _is_record(path))
        yield from (state / "logs").glob("*.log")
    others = [root / STATE_DIR / shared for shared in _SHARED] if alone else []
    yield from filter(Path.is_file, [project_file(root, name), *others])


def _is_record(path: Path) -> bool:
    return path.name == LAST_BUILD or path.name.endswith(".partial.ndjson")


def _remove_records(root: Path, name: str, *, alone: bool) -> None:
    state, own = root / STATE_DIR, state_of(root, name)
    if not state.is_dir():
        return
    lock = FileLock(state / "lock", fs.PROJECT)
    # A build that writes its results goes on until it is done.
    lock.acquire("clean", poll=lambda _owner: time.sleep(0.02))
    try:
        for path in list(_records(root, name, alone=alone)):
            with fs.translate_errors("remove a record", path, fs.PROJECT):
                path.unlink(missing_ok=True)
    finally:
        lock.release(remove=alone)
    directories = [own / "logs"] + ([own, own.parent] if name != MANIFEST else []) + [state]
    for directory in directories:
        # What is not llmbuild's keeps its directory.
        with contextlib.suppress(OSError):
            directory.rmdir()
