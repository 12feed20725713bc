"""The work of an installation: which files are not what they should be, and which do not belong any more.

Reads only.  What the record does not name is the user's, and is never replaced or removed.  Where a symbolic link leads
on the way to a file, the record alone is not enough, for it may come from elsewhere: there llmbuild's own are the files
that are to the last nanosecond the ones that it left.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from llmbuild.canonical import Digest, digest_file
from llmbuild.engine import fs
from llmbuild.engine.installed import InstalledFile, Record, beneath
from llmbuild.engine.names import unfit
from llmbuild.engine.store import Store
from llmbuild.engine.task import Install
from llmbuild.engine.tree import FileEntry, Tree
from llmbuild.engine.verified import stamp_of
from llmbuild.errors import LlmbuildError, StoreError, UsageError, raise_all

SHOWN = 3
"""Paths that an error names before it counts the rest."""


class Installation(NamedTuple):
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


class Wanted(NamedTuple):
    """A file that the project should have; `dest` is the file, or the directory of results that it is a part of."""

    entry: FileEntry
    label: str
    dest: str


@dataclass(frozen=True)
class Asker:
    """Who installs: the manifest by its file name, the labels of all its tasks if they are known, the labels of the tasks
    that are installed now, and whether no other manifest of the directory is known."""

    manifest: str
    labels: Collection[str]
    known: Collection[str] | None
    ask_alone: Callable[[], bool]

    @cached_property
    def alone(self) -> bool:
        return self.ask_alone()


@dataclass(slots=True)
class Decision:
    """`stale` paths are written, with the content that llmbuild left there before, if any; `right` ones are as they should be,
    of which the record lacks those in `news`; `obsolete` ones are removed; `gone` are entries of the record that match no file
    of llmbuild any more."""

    stale: dict[str, Digest | None] = field(default_factory=dict)
    right: list[str] = field(default_factory=list)
    news: list[str] = field(default_factory=list)
    obsolete: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    report: InstallReport = field(default_factory=InstallReport)


def collect(items: Sequence[Installation]) -> dict[str, Wanted]:
    """The files of all installs by path.  Raises UsageError when two claim one path, and StoreError for a result without
    the file, or with a name that llmbuild does not write."""
    wanted: dict[str, Wanted] = {}
    errors: list[LlmbuildError] = []
    for item in items:
        found = False
        for entry, path in destinations(item):
            found = True
            if why := unfit(path):
                errors.append(
                    UsageError("an output path leaves the project", where=path, why=f"it is of {item.label}: {why}")
                )
                continue
            other = wanted.get(path)
            if other is not None and (other.entry.digest, other.entry.executable) != (entry.digest, entry.executable):
                errors.append(
                    UsageError(
                        "two tasks claim the same output file with different content",
                        where=path,
                        why=f"{other.label} and {item.label} both write it",
                        fix="give the models, quantizations or platforms different names",
                    )
                )
            elif other is None:
                wanted[path] = Wanted(entry, item.label, item.install.dest.rstrip("/"))
        if not found and item.install.source:
            errors.append(StoreError(f"{item.label} did not produce {item.install.source}", where=item.install.dest))
    for path in sorted(wanted):
        above = next((str(p) for p in Path(path).parents if str(p) in wanted), None)
        if above is not None:
            errors.append(UsageError("an output file is in the way of an output directory", where=above))
    raise_all(errors)
    return dict(sorted(wanted.items()))


def destinations(item: Installation) -> list[tuple[FileEntry, str]]:
    """The files of an install with their paths in the project: `source` is "" (all), one file, or a directory."""
    source, dest = item.install.source.rstrip("/"), item.install.dest.rstrip("/")
    if not source:
        return [(entry, f"{dest}/{entry.path}" if dest else entry.path) for entry in item.tree.files]
    exact = [(entry, dest) for entry in item.tree.files if entry.path == source]
    below = [entry for entry in item.tree.files if entry.path.startswith(f"{source}/")]
    return exact or [(entry, dest + entry.path[len(source) :]) for entry in below]


def require_unclaimed(root: Path, record: Record, dests: Iterable[str], manifest: str) -> None:
    """Raise UsageError when another manifest that is still there has put files where this one would."""
    places = frozenset(dests)
    claims: dict[str, set[str]] = {}
    for path, one in record.files.items():
        if one.manifest not in (None, manifest) and (dest := beneath(path, places)) is not None:
            claims.setdefault(str(one.manifest), set()).add(dest)
    raise_all([
        UsageError(
            "two manifests claim the same output",
            where=sorted(dests)[0],
            why=f"{other} and {manifest} both write {_listed(sorted(dests))}",
            fix=f"give one of them another output in its [project]; if {other} does not make it any more, build {other} first",
        )
        for other, dests in sorted(claims.items())
        if (root / other).is_file()
    ])  # fmt: skip


def _listed(dests: Sequence[str]) -> str:
    """The first few of some paths, and how many more there are."""
    more = len(dests) - SHOWN
    return ", ".join(dests) if more <= 1 else f"{', '.join(dests[:SHOWN])} and {more} more"


def decide(store: Store, root: Path, wanted: dict[str, Wanted], record: Record, asker: Asker) -> Decision:
    """Decide which files to write, to keep and to remove.  Raises StoreError when a file that llmbuild did not write is in the
    way."""
    decision = Decision()
    _find_stale(store, root, wanted, record, decision, asker.manifest)
    dests = frozenset(one.dest for one in wanted.values())
    for path, one in sorted(record.files.items()):
        if path in wanted or not _is_of(root, path, one, dests, asker):
            continue
        if one.label not in asker.labels and (asker.known is None or one.label in asker.known):
            continue
        own = _is_own(root, path, one)
        if own:
            decision.obsolete.append(path)
        else:
            decision.gone.append(path)
            if own is not None:
                decision.report.kept.append(path)
    return decision


def _is_of(root: Path, path: str, one: InstalledFile, dests: Collection[str], asker: Asker) -> bool:
    """Whether an entry is of the manifest that installs.  One that names no manifest, or one that is gone, is so where it lies
    among the manifest's results; the former also where there is no other manifest."""
    if one.manifest == asker.manifest:
        return True
    if one.manifest is not None and (root / one.manifest).is_file():
        return False
    return beneath(path, dests) is not None or (one.manifest is None and asker.alone)


def _is_own(root: Path, path: str, one: InstalledFile) -> bool | None:
    """Whether the file is still what llmbuild left there; None when there is none."""
    file = root / path
    try:
        status = file.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise fs.store_error(error, "look at an output file", file, fs.OUTPUT) from error
    if not stat.S_ISREG(status.st_mode):
        return False
    if one.stamp == stamp_of(status):
        return True
    if through_link(root, path):
        return False
    with fs.translate_errors("read an output file", file, fs.OUTPUT):
        return digest_file(file) in (one.digest, one.previous)


def _find_stale(
    store: Store, root: Path, wanted: dict[str, Wanted], record: Record, decision: Decision, manifest: str
) -> None:
    """The wanted paths whose file is not what it should be; refuses to replace what llmbuild did not write."""
    report = decision.report
    errors: list[LlmbuildError] = []
    looked: set[str] = set()
    for path, one in wanted.items():
        known = record.files.get(path)
        file = root / path
        try:
            status = file.lstat()
        except (FileNotFoundError, NotADirectoryError):
            decision.stale[path] = None
            (report.written if known is None else report.restored).append(path)
            errors += _in_the_way(root, path, looked)
            continue
        except OSError as error:
            raise fs.store_error(error, "look at an output file", file, fs.OUTPUT) from error
        same = known is not None and known.stamp == stamp_of(status)
        if known is not None and same and known.digest == one.entry.digest:
            report.unchanged += 1
            decision.right.append(path)
            if (known.label, known.manifest) != (one.label, manifest):
                decision.news.append(path)
            continue
        with fs.translate_errors("read an output file", file, fs.OUTPUT):
            digest = None
            if stat.S_ISREG(status.st_mode):
                # A hard link to a verified blob shares its stat; linking the blob elsewhere changed the ctime of both.
                linked = store.cas.memo.holds(one.entry.digest, stamp_of(status))
                digest = one.entry.digest if linked else known.digest if known and same else digest_file(file)
        if digest == one.entry.digest and bool(status.st_mode & 0o100) == one.entry.executable:
            # The content is what it should be, whoever put it there; from now on it is recorded.
            report.unchanged += 1
            decision.right.append(path)
            decision.news.append(path)
        elif known is not None and not stat.S_ISDIR(status.st_mode) and (same or not through_link(root, path)):
            decision.stale[path] = known.previous if digest == known.previous else known.digest
            edited = known.digest == one.entry.digest and known.stamp is not None
            (report.restored if edited else report.written).append(path)
        else:
            errors.append(_foreign(file))
    raise_all(errors)


def _in_the_way(root: Path, path: str, looked: set[str]) -> list[LlmbuildError]:
    """What stands where a directory on the way to an output should be."""
    place = root
    for part in path.split("/")[:-1]:
        place = place / part
        if str(place) in looked:
            continue
        looked.add(str(place))
        try:
            if stat.S_ISDIR(place.stat().st_mode):
                continue
        except (FileNotFoundError, NotADirectoryError):
            if not place.is_symlink():
                # Nothing is there, or what is in the way stands further up and was found on the way to another output.
                break
            return [
                StoreError(
                    "a link on the way to an output leads nowhere",
                    where=str(place),
                    why=f"it points to {os.readlink(place)}",  # noqa: PTH115 - as it is written.
                    fix="make the directory that it points to, or remove the link",
                )
            ]
        except OSError as error:
            return [fs.store_error(error, "look at an output directory", place, fs.OUTPUT)]
        return [_foreign(place)]
    return []


def _foreign(file: Path) -> StoreError:
    return StoreError(
        "a file that llmbuild did not write is in the way of an output",
        where=str(file),
        fix="move it away or delete it, then build again",
    )


def through_link(root: Path, path: str) -> bool:
    """Whether a directory on the way from the root to a path is a symbolic link."""
    place = str(root)
    for part in path.split("/")[:-1]:
        place = f"{place}/{part}"
        if os.path.islink(place):  # noqa: PTH114 - a name is enough.
            return True
    return False
