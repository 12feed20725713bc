"""Checking a whole store: every blob hashed, every trace read and its output looked for.

Nothing that is found here endangers a build, which verifies all it reads.  An audit reports it before a build does.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from llmbuild.canonical import Digest, digest_file, known_digest, parse_digest
from llmbuild.engine import files, fs
from llmbuild.engine.cas import EMPTY_TREE
from llmbuild.engine.history import read_history
from llmbuild.engine.intermediates import intermediate_files, is_sound
from llmbuild.engine.kind import Progress, no_progress
from llmbuild.engine.locks import guard
from llmbuild.engine.places import read_place
from llmbuild.engine.store import Store
from llmbuild.engine.trace import Trace
from llmbuild.engine.tree import Tree
from llmbuild.engine.upkeep.gc import leftovers
from llmbuild.engine.verified import stamp_of
from llmbuild.errors import StoreError
from llmbuild.printable import several

Fault: TypeAlias = Literal[
    "corrupt-blob",
    "stray-file",
    "damaged-trace",
    "incomplete-trace",
    "damaged-action",
    "damaged-history",
    "damaged-intermediate",
]

_NO_BLOB = {stat.S_IFLNK: "it is a symbolic link, and blobs are files", stat.S_IFDIR: "it is a directory"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong.  `name` is the digest of the blob, trace or action, or the path of another file; `label` the
    task of a trace; `detail` describes exactly what is wrong."""

    fault: Fault
    name: str
    detail: str
    label: str = ""


@dataclass(frozen=True, slots=True)
class Audit:
    """What an audit looked at and found.  `size` is in bytes; `leftovers` are of dead or failed tasks and do no harm."""

    blobs: int
    size: int
    traces: int
    actions: int
    findings: tuple[Finding, ...]
    leftovers: int
    repaired: int = 0


def audit(store: Store, *, repair: bool = False, progress: Progress = no_progress) -> Audit:
    """Check everything in a store; with `repair` also remove what is wrong, so that it is built again when needed.

    No collection goes on meanwhile; builds may.  Raises StoreError when the store cannot be read, or not be repaired.
    """
    with guard(store.cas.guard_path, exclusive=False):
        findings: list[Finding] = []
        good = _blobs(store, findings, progress)
        bad = {parse_digest(one.name) for one in findings if one.fault == "corrupt-blob"}
        traces = _traces(store, good, bad, findings)
        actions = _actions(store, findings)
        _places(store, findings)
        _histories(store, findings)
        _intermediates(store, findings)
        if repair:
            _repair(store, findings)
    left = len(leftovers(store, time.time())) + len(store.dead_scratch())
    if repair:
        store.clean_scratch()
    return Audit(
        blobs=len(good) + sum(one.fault == "corrupt-blob" for one in findings),
        size=sum(good.values()),
        traces=traces,
        actions=actions,
        findings=tuple(findings),
        leftovers=left,
        repaired=len(findings) if repair else 0,
    )


def _blobs(store: Store, findings: list[Finding], progress: Progress) -> dict[Digest, int]:
    """Hash every blob; returns the size of each good one."""
    paths: list[tuple[Digest, Path, os.stat_result]] = []
    for path, status in _below_blobs(store.cas.root):
        name = known_digest(path.parent.name + path.name) if path.parent != store.cas.root else None
        if name is not None and stat.S_ISREG(status.st_mode):
            paths.append((name, path, status))
        elif not path.name.startswith("."):
            detail = _NO_BLOB.get(stat.S_IFMT(status.st_mode), "it is not named as a blob")
            findings.append(Finding("stray-file", str(path.relative_to(store.root)), detail))
    total = sum(status.st_size for _, _, status in paths)
    done = 0
    good: dict[Digest, int] = {}

    def hashed(item: tuple[str, Path, os.stat_result]) -> str | None:
        try:
            return digest_file(item[1])
        except FileNotFoundError:
            return None
        except OSError as error:
            raise fs.store_error(error, "read a blob", item[1]) from error

    with ThreadPoolExecutor(_threads()) as pool:
        for (name, _path, status), digest in zip(paths, pool.map(hashed, paths), strict=True):
            done += status.st_size
            progress(done, total, "bytes")
            if digest == name:
                good[name] = status.st_size
                store.cas.memo.record(name, stamp_of(status))
            elif digest is not None:
                # A file that went meanwhile was taken by another process, and is not wrong.
                findings.append(Finding("corrupt-blob", name, f"its content has the digest {digest}"))
    return good


def _below_blobs(root: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """The files in the directories of blobs, and whatever lies beside these directories; links are not followed."""
    for path in sorted(root.glob("*")):
        try:
            status = path.lstat()
            inside = [path]
            if stat.S_ISDIR(status.st_mode) and len(path.name) == 2:
                inside = sorted(path.iterdir())
            for one in inside:
                with contextlib.suppress(FileNotFoundError):
                    yield one, one.lstat()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise fs.store_error(error, "read a directory of blobs", path) from error


def _traces(store: Store, good: dict[Digest, int], bad: set[Digest], findings: list[Finding]) -> int:
    names = store.traces.names()
    for action in names:
        path = store.traces.path(action)
        try:
            trace = Trace.from_bytes(files.read_bytes(str(path)))
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            findings.append(Finding("damaged-trace", action, str(error)))
            continue
        if trace.action != action:
            findings.append(Finding("damaged-trace", action, f"it is the trace of {trace.action}"))
            continue
        missing = _missing(store, trace, good, bad)
        if missing is not None:
            findings.append(Finding("incomplete-trace", action, missing, trace.label))
    return len(names)


def _missing(store: Store, trace: Trace, good: dict[Digest, int], bad: set[Digest]) -> str | None:
    """What is missing of a trace's output, in words."""
    if trace.output == EMPTY_TREE.digest:
        return None

    def present(digest: Digest, size: int | None = None) -> bool:
        if digest in good:
            return size in (None, good[digest])
        if size is not None and store.cas.places.promises(digest, size):
            # What its owner did to the file since is no damage of the store.
            return True
        # A build may have written it since blobs were listed.  A corrupt one stays for now: a lookup would drop it.
        return digest not in bad and store.cas.has(digest, size)

    if not present(trace.output):
        return "its output tree is missing or corrupt"
    try:
        tree: Tree = store.cas.get_tree(trace.output)
    except StoreError as error:
        return str(error)
    lost = [one.path for one in tree.files if not present(one.digest, one.size)]
    if not lost:
        return None
    return f"{several(lost)} of its output {'are' if len(lost) > 1 else 'is'} missing or corrupt"


def _actions(store: Store, findings: list[Finding]) -> int:
    count = 0
    for path in sorted((store.root / "actions").glob("??/*.json")):
        count += 1
        digest = known_digest(path.parent.name + path.stem)
        if digest is None:
            continue
        try:
            store.get_action(digest)
        except StoreError as error:
            if path.exists():
                findings.append(Finding("damaged-action", digest, error.why or error.what))
    return count


def _places(store: Store, findings: list[Finding]) -> None:
    """Verify the records of files that were left where their owners have them, and not these files."""
    for digest, path in store.cas.places.all():
        try:
            read_place(path).pieces(digest)
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            findings.append(Finding("stray-file", path.relative_to(store.root).as_posix(), str(error)))


def _histories(store: Store, findings: list[Finding]) -> None:
    """Verify the records of what projects were built from last; a damaged one costs the reasons of one build."""
    for path in sorted((store.root / "projects").glob("*.json")):
        try:
            read_history(path)
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            findings.append(Finding("damaged-history", path.relative_to(store.root).as_posix(), str(error)))


def _intermediates(store: Store, findings: list[Finding]) -> None:
    """Verify the intermediate results; a damaged one costs the time to make it again."""
    for one in intermediate_files(store.intermediates_path):
        if not is_sound(one.path) and one.path.exists():
            name = one.path.relative_to(store.root).as_posix()
            findings.append(Finding("damaged-intermediate", name, "it is not what was written, or nothing of llmbuild"))


def _repair(store: Store, findings: list[Finding]) -> None:
    """Remove all that was found wrong.  Raises StoreError for what could not be removed, once the rest is."""
    failed: list[StoreError] = []
    for finding in findings:
        try:
            _remove(store, finding)
        except StoreError as error:
            failed.append(error)
    if failed:
        raise failed[0]


def _remove(store: Store, finding: Finding) -> None:
    steps: dict[Fault, Callable[[], None]] = {
        "corrupt-blob": lambda: store.cas.remove(parse_digest(finding.name)),
        "stray-file": lambda: files.remove_tree(store.root / finding.name, store.root),
        "damaged-trace": lambda: store.traces.remove(parse_digest(finding.name)),
        "incomplete-trace": lambda: store.traces.remove(parse_digest(finding.name)),
        "damaged-action": lambda: files.remove_tree(store.action_path(parse_digest(finding.name)), store.root),
        "damaged-intermediate": lambda: files.remove_tree(store.root / finding.name, store.root),
        "damaged-history": lambda: files.remove_tree(store.root / finding.name, store.root),
    }
    with fs.translate_errors("repair the cache", store.root / finding.name):
        steps[finding.fault]()


def _threads() -> int:
    return min(8, os.cpu_count() or 1)
