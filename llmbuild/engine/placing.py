"""Putting files into the project so that a reader finds results of one age.

A directory of results is prepared as a whole beside the old one; then the two change names in one step, and the user's own
files, which the new one has already as links, are taken out of the old one.  Where that is not possible, files are replaced one
by one: first `mlc-chat-config.json` and the indexes go, without which nobody loads a model, then come the weights, and those
last.

All that needs space is done before any name changes: a disk that is full changes nothing.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from llmbuild.checkpoints.names import CHAT_CONFIG
from llmbuild.engine import files, fs
from llmbuild.engine.cas import Cas
from llmbuild.engine.deciding import Wanted, through_link
from llmbuild.engine.files import TEMPORARY

_LAST = ("ndarray-cache.json", "tensor-cache.json", CHAT_CONFIG)
"""What a reader of a model directory opens first, and so what is put there last and taken away first."""


class Step(Protocol):
    """Changes that are prepared."""

    def commit(self) -> None:
        """Change the names.  Raises OSError."""

    def discard(self) -> None:
        """Take away what was prepared and not used, as well as it goes."""


class Stepwise:
    """Files that are put and removed one by one.

    `puts` gives the prepared file of each path.  What is removed leaves no empty directories.
    """

    def __init__(self, root: Path, puts: Mapping[str, str], removed: Iterable[str]) -> None:
        self._root = root
        self._puts = dict(sorted(puts.items(), key=lambda item: _rank(item[0])))
        self._removed = tuple(removed)

    def commit(self) -> None:
        if len(self._puts) + len(self._removed) > 1:
            for path in sorted(filter(is_read_first, (*self._puts, *self._removed)), key=_rank, reverse=True):
                fs.current.unlink(self._root / path)
        for path in self._removed:
            fs.current.unlink(self._root / path)
            _remove_empty(self._root, path)
        for path, prepared in self._puts.items():
            files.put_in_place(prepared, self._root / path)

    def discard(self) -> None:
        for prepared in self._puts.values():
            files.discard(prepared)


class Whole:
    """A directory that is prepared as a whole, at `prepared`, to take the place of `directory`, or to be the first there.

    `dropped` are the paths whose old files go, `removed` those of them that have no new ones.
    """

    def __init__(
        self, root: Path, directory: str, prepared: str, puts: Mapping[str, str], removed: Sequence[str], *, new: bool
    ) -> None:
        self.directory = directory
        self.prepared = prepared
        self.new = new
        self._root = root
        self._puts = puts
        self._removed = removed
        self._begun = False

    @property
    def inode(self) -> int:
        return os.lstat(self._root / self.prepared).st_ino

    def commit(self) -> None:
        # From here on the name may be that of the old directory, with files of the user in it.
        self._begun = True
        old, now = self._root / self.prepared, self._root / self.directory
        if self.new:
            fs.current.replace(old, now)
            return
        try:
            fs.current.exchange(old, now)
        except OSError as error:
            if error.errno not in fs.CANNOT_EXCHANGE:
                raise
            Stepwise(self._root, self._puts, self._removed).commit()
            _remove_prepared(old)
            return
        dropped = {*self._puts, *self._removed}
        merge(old, now, lambda name, _there: f"{self.directory}/{name}" in dropped)

    def discard(self) -> None:
        if not self._begun:
            with contextlib.suppress(OSError):
                _remove_prepared(self._root / self.prepared)


def _remove_prepared(directory: Path) -> None:
    """Remove a directory that was made here, also where the output is a link to another disk.  Raises OSError."""
    files.remove_tree(directory, directory.parent)


def merge(old: Path, now: Path, droppable: Callable[[str, bool], bool], prefix: str = "") -> None:
    """Empty an old directory into the one that took its place, and remove it.

    A file that is the same in both goes, and so does one that `droppable` (by its name, and whether the new directory has one
    of that name) reports as of no use; any other is the user's and is moved, unless the user has put a later one into the new
    directory.  Raises OSError.
    """
    with os.scandir(old) as found:
        entries = list(found)
    for entry in entries:
        name, file, target = prefix + entry.name, Path(entry.path), now / entry.name
        if entry.is_dir(follow_symlinks=False):
            merge(file, target, droppable, f"{name}/")
            continue
        there = os.path.lexists(target)
        if droppable(name, there) or (there and (_same(file, target) or _is_later(target, file))):
            fs.current.unlink(file)
        else:
            fs.current.mkdir(now)
            fs.current.replace(file, target)
    fs.current.rmdir(old)


@dataclass(slots=True)
class Group:
    """What changes among the results at `dest`, a directory or one file.

    `again` are paths of those that a reader opens first: they are right, and are put anew where files go one by one.
    """

    dest: str
    stale: list[str]
    removed: list[str]
    again: list[str]
    whole: bool
    """Whether nothing else is installed in a directory within it."""


def prepare(cas: Cas, root: Path, group: Group, wanted: Mapping[str, Wanted]) -> Step:
    """Prepare the changes of a group.  Raises MissingBlobError, or OSError; then nothing is left of it."""
    several = len(group.stale) + len(group.removed) > 1
    place = root / group.dest
    if group.whole and group.stale and group.dest not in wanted:
        if not os.path.lexists(place):
            return _prepare_whole(cas, root, group, wanted, new=True)
        if several and _exchangeable(root, group):
            with contextlib.suppress(_CannotCarryError):
                return _prepare_whole(cas, root, group, wanted, new=False)
    again = group.again if several else []
    puts: dict[str, str] = {}
    try:
        for path in (*group.stale, *again):
            file = root / path
            fs.current.mkdir(file.parent)
            temporary = str(file.parent / files.temporary_name())
            if path in group.stale:
                cas.share_out(wanted[path].entry.digest, Path(temporary), wanted[path].entry.executable)
            else:
                _share_again(file, temporary)
            puts[path] = temporary
    except BaseException:
        for temporary in puts.values():
            files.discard(temporary)
        raise
    return Stepwise(root, puts, group.removed)


class _CannotCarryError(Exception):
    """What stays in a directory cannot be linked into another one."""


def _prepare_whole(cas: Cas, root: Path, group: Group, wanted: Mapping[str, Wanted], *, new: bool) -> Whole:
    above = group.dest.rpartition("/")[0]
    prepared = f"{above}/{files.temporary_name()}" if above else files.temporary_name()
    scratch = root / prepared
    left_out = {*group.stale, *group.removed}
    puts = {}
    try:
        fs.current.mkdir(scratch)
        modes = {} if new else _carry(root / group.dest, scratch, left_out, f"{group.dest}/")
        for path in group.stale:
            file = scratch / path[len(group.dest) + 1 :]
            fs.current.mkdir(file.parent)
            cas.share_out(wanted[path].entry.digest, file, wanted[path].entry.executable)
            puts[path] = str(file)
        for path in group.again if modes else ():
            puts[path] = str(scratch / path[len(group.dest) + 1 :])
        for directory, mode in reversed(modes.items()):
            fs.current.chmod(directory, mode)
    except _CannotCarryError:
        _remove_prepared(scratch)
        raise
    except BaseException:
        with contextlib.suppress(OSError):
            _remove_prepared(scratch)
        raise
    return Whole(root, group.dest, prepared, puts, group.removed, new=new)


def _carry(old: Path, scratch: Path, left_out: set[str], prefix: str) -> dict[Path, int]:
    """Link what stays in a directory into another one; returns the modes that its directories are to have."""
    if not os.access(old, os.W_OK | os.X_OK):
        raise _CannotCarryError
    modes = {scratch: os.stat(old).st_mode & 0o7777}  # noqa: PTH116 - never a link.
    with os.scandir(old) as found:
        entries = list(found)
    for entry in entries:
        target = scratch / entry.name
        if entry.is_dir(follow_symlinks=False):
            fs.current.mkdir(target)
            inner = _carry(Path(entry.path), target, left_out, f"{prefix}{entry.name}/")
            with os.scandir(entry.path) as before, os.scandir(target) as after:
                emptied = any(before) and not any(after)
            if emptied:
                fs.current.rmdir(target)
            else:
                modes |= inner
        elif prefix + entry.name in left_out or entry.name.startswith(TEMPORARY):
            continue
        elif entry.is_symlink():
            fs.current.symlink(os.readlink(entry.path), target)  # noqa: PTH115 - as it is written.
        else:
            try:
                fs.current.hard_link(entry.path, target)
            except OSError as error:
                if error.errno in fs.CANNOT_SHARE:
                    raise _CannotCarryError from error
                raise
    return modes


def _exchangeable(root: Path, group: Group) -> bool:
    """Whether a directory is one of the file system that it lies in, without links on the way to what changes in it."""
    place = root / group.dest
    status = os.lstat(place)
    if os.path.islink(place) or status.st_dev != os.stat(place.parent).st_dev:  # noqa: PTH114, PTH116
        return False
    changed = (*group.stale, *group.removed, *group.again)
    return not any(through_link(place, path[len(group.dest) + 1 :]) for path in changed)


def _share_again(file: Path, temporary: str) -> None:
    """A second name or a copy of a file of ours that is put in its own place again.  Raises OSError."""
    try:
        fs.current.hard_link(file, temporary)
    except OSError as error:
        if error.errno not in fs.CANNOT_SHARE:
            raise
        files.copy_hashed(file, temporary)
        fs.current.chmod(temporary, os.stat(file).st_mode & 0o777)  # noqa: PTH116


def _rank(path: str) -> int:
    name = path.rpartition("/")[2]
    return _LAST.index(name) + 1 if name in _LAST else 0


def is_read_first(path: str) -> bool:
    """Whether a reader of a model directory opens this file before others."""
    return _rank(path) > 0


def _remove_empty(root: Path, path: str) -> None:
    for directory in Path(path).parents:
        if str(directory) == ".":
            break
        try:
            fs.current.rmdir(root / directory)
        except OSError:
            # It is not empty, or not ours to remove.
            break


def _is_later(one: Path, other: Path) -> bool:
    return os.lstat(one).st_mtime_ns > os.lstat(other).st_mtime_ns


def _same(one: Path, other: Path) -> bool:
    first, second = os.lstat(one), os.lstat(other)
    if (first.st_ino, first.st_dev) == (second.st_ino, second.st_dev):
        return True
    links = os.path.islink(one) and os.path.islink(other)  # noqa: PTH114
    return links and os.readlink(one) == os.readlink(other)  # noqa: PTH115
