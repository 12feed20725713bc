"""The store: one directory that holds blobs, traces, action records, logs and locks, shared by builds and projects.

blobs/ab/cdef…        content, by SHA-256
in-place/ab/cdef…     what was left where its owner has it, by SHA-256
traces/ab/cdef….json  what ran
actions/ab/cdef….json what can be run (`llmbuild exec <digest>`)
logs/                 output of failed and running tasks
locks/                one file an action, and one a result that a task makes on the way
intermediates/        what tasks made on the way, for later ones
resume/               what killed tasks had done already, a directory an action
scratch/              temporary files, each owner's in a directory that it holds a lock on
projects/             the last action of each label
index/                a cache over the traces
verified, stat.json   memos of digests
uses                  how often builds found what they needed
gc.lock               taken by collections, and by whoever reuses a blob that no trace names yet
version               the layout's number
secret                what seals the expanded manifests in projects
"""

from __future__ import annotations

import atexit
import contextlib
import os
import stat
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from llmbuild.canonical import Digest, Json, canonical_json
from llmbuild.engine import files, fs, records
from llmbuild.engine.action import Action
from llmbuild.engine.cas import Cas
from llmbuild.engine.history import History
from llmbuild.engine.hit_counts import Uses
from llmbuild.engine.locks import FileLock, Owner, is_held
from llmbuild.engine.seal import SECRET, Seal
from llmbuild.engine.settings import read_settings
from llmbuild.engine.statcache import StatCache
from llmbuild.engine.trace import TraceStore
from llmbuild.errors import StoreError
from llmbuild.home import at_home, user_directory

if TYPE_CHECKING:
    from llmbuild.engine.index import TraceIndex

LAYOUT_VERSION = 1

_MAY_BE_LINK = "blobs"
"""This directory may be a link to a disk with more space.  Only blobs are removed behind it."""

_WORK = ["inputs", "out", "scratch"]

_RECORDED = 64
"""The most records that are cached after a write and before a read."""


def default_root(environ: Mapping[str, str] | None = None) -> Path:
    """The store's directory: $LLMBUILD_CACHE, else the user's `cache-dir` setting, else $XDG_CACHE_HOME/llmbuild, else
    ~/.cache/llmbuild.  Raises UsageError when the settings are wrong."""
    environ = os.environ if environ is None else environ
    if chosen := environ.get("LLMBUILD_CACHE"):
        return at_home(chosen, "LLMBUILD_CACHE").absolute()
    if (configured := read_settings(environ).cache_dir) is not None:
        return configured
    return user_directory("XDG_CACHE_HOME", "~/.cache", environ) / "llmbuild"


@dataclass(frozen=True, slots=True)
class ActionRecord:
    """An action with the label and project that requested it, as the store records it."""

    action: Action
    label: str
    project: str

    def to_json(self) -> dict[str, Json]:
        return {
            "key": self.action.key(),
            "hints": self.action.hints,
            "label": self.label,
            "project": self.project,
        }


def parse_action(data: bytes) -> ActionRecord:
    """The inverse of `ActionRecord.to_json`, from bytes; raises ValueError."""
    record = records.json_object(data)
    if record.keys() != {"key", "hints", "label", "project"}:
        raise ValueError("the record has other fields")
    action = records.action(record["key"], record["hints"])
    return ActionRecord(
        action, records.text(record["label"], "the label"), records.text(record["project"], "the project")
    )


class Store:
    """An open store.  Opening makes nothing on disk; the first write does.  Raises StoreError."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = (default_root() if root is None else root).absolute()
        self._require_own()
        self._check_version()
        self._scratch_lock: FileLock | None = None
        self._scratch_guard = threading.Lock()
        self._scratch_pid = 0
        self._scratch_dir = self.root
        self._idle_work: list[Path] = []
        self._recorded: dict[Digest, bytes] = {}
        self._held: dict[Digest, FileLock] = {}
        self.cas = Cas(self.root / "blobs", self.scratch)
        self.traces = TraceStore(self.root / "traces", self.scratch)
        self.stat_cache = StatCache(self.root / "stat.json")
        self.uses = Uses(self.root / "uses")
        self.seal = Seal(self.root / SECRET)

    @cached_property
    def index(self) -> TraceIndex:
        from llmbuild.engine.index import TraceIndex

        return TraceIndex(self.root / "index", self.traces)

    def history(self, project: str) -> History:
        """The last actions of a project, named by whatever identifies it (its directory)."""
        return History(self.root / "projects", project, self.scratch)

    def lock(self, action: Digest) -> FileLock:
        """The lock under which an action runs."""
        return FileLock(self.root / "locks" / action)

    @contextlib.contextmanager
    def hold(self, action: Digest, label: str, *, poll: Callable[[Owner | None], None]) -> Iterator[None]:
        """Hold the lock under which an action runs, waiting for it as `FileLock.acquire` does."""
        lock = self.lock(action)
        lock.acquire(label, poll=poll)
        self._held[action] = lock
        try:
            yield
        finally:
            del self._held[action]
            lock.release()

    def held_lock(self, action: Digest) -> int | None:
        """The descriptor of an action's lock while this process holds it.

        A worker process that inherits it keeps the lock as long as it lives, so that an orphan and its successor never
        run at the same time.
        """
        lock = self._held.get(action)
        return None if lock is None else lock.fd

    def log_path(self, action: Digest) -> Path:
        """Where an action's output goes while it runs, and stays when it fails."""
        return self.root / "logs" / f"{action}.log"

    def resume_path(self, action: Digest) -> Path:
        """Where a resumable action keeps what it has done, until it has succeeded.

        It belongs to whoever holds the action's lock, and is safe to remove when nobody does.
        """
        return self.root / "resume" / action

    @property
    def intermediates_path(self) -> Path:
        """The directory of intermediate results (`engine.intermediates`)."""
        return self.root / "intermediates"

    def distrust(self, path: Path, digest: Digest) -> None:
        """Evict the digest of a user's file: it had other bytes, whatever its times are."""
        self.cas.places.drop(digest)
        self.stat_cache.distrust(path)

    # Action records.

    def action_path(self, action: Digest) -> Path:
        return self.root / "actions" / action[:2] / f"{action[2:]}.json"

    def put_action(self, record: ActionRecord, digest: Digest | None = None) -> Digest:
        """Write an action's record, so that any process that reaches the store can run it; returns the action's digest,
        which is computed unless it is given."""
        digest = digest or record.action.digest
        path = f"{self.root}/actions/{digest[:2]}/{digest[2:]}.json"
        data = canonical_json(record.to_json())
        try:
            known = files.read_bytes(path) == data
        except OSError:
            known = False
        if not known:
            files.write_atomic(path, data, scratch=self.scratch())
        # The next run of it in this process need not read what was just written.
        if len(self._recorded) >= _RECORDED:
            self._recorded.clear()
        self._recorded[digest] = data
        return digest

    def get_action(self, digest: Digest) -> ActionRecord:
        """Read an action's record.  Raises StoreError when there is none or its digest does not match its name."""
        if (written := self._recorded.pop(digest, None)) is not None:
            return parse_action(written)
        path = self.action_path(digest)
        try:
            record = parse_action(files.read_bytes(str(path)))
        except FileNotFoundError:
            raise StoreError(
                f"no action {digest[:12]} in the cache",
                where=str(self.root),
                fix="run `llmbuild build`, which records it",
            ) from None
        except (OSError, ValueError) as error:
            raise StoreError("an action's record is damaged", where=str(path), why=str(error)) from error
        if record.action.digest != digest:
            raise StoreError("an action's record is damaged", where=str(path), why="its digest is another one")
        return record

    # Scratch.

    def scratch(self) -> Path:
        """This process's directory for temporary files; it goes away when the process ends, or is cleaned by another."""
        with self._scratch_guard:
            if self._scratch_lock is None or self._scratch_pid != os.getpid():
                self._prepare()
                lock = FileLock(self.root / "scratch" / f"{os.urandom(8).hex()}.lock")
                while not lock.try_acquire("scratch"):
                    lock = FileLock(self.root / "scratch" / f"{os.urandom(8).hex()}.lock")
                with fs.translate_errors("make a scratch directory", self.root):
                    fs.current.mkdir(lock.path.with_suffix(""))
                self._scratch_lock = lock
                self._scratch_pid = os.getpid()
                self._scratch_dir = lock.path.with_suffix("")
                self._idle_work.clear()
                atexit.register(self.close)
            return self._scratch_dir

    @contextlib.contextmanager
    def work_dir(self) -> Iterator[Path]:
        """A directory of this process's scratch for one run of an action, with the empty directories `inputs`, `out` and
        `scratch` in it.  Raises StoreError.

        Where it is as empty afterwards, the next run reuses it: making and removing directories is among the slowest things
        that file systems do.
        """
        root = self.scratch()
        try:
            path = self._idle_work.pop()
        except IndexError:
            path = root / f"work-{os.urandom(4).hex()}"
            with fs.translate_errors("make the directories of a task", path):
                for name in _WORK:
                    fs.current.mkdir(f"{path}/{name}")
        try:
            yield path
        finally:
            # Where the disk fails, what is left goes with the scratch directory.
            with contextlib.suppress(OSError):
                names = os.listdir(path)  # noqa: PTH208 - a name is enough.
                if sorted(names) == _WORK and all(_emptied(f"{path}/{name}") for name in _WORK):
                    self._idle_work.append(path)
                else:
                    files.remove_tree(path, root)

    def new_scratch_dir(self, name: str) -> Path:
        """A new empty directory in this process's scratch."""
        path = self.scratch() / f"{name}-{os.urandom(4).hex()}"
        with fs.translate_errors("make a scratch directory", path):
            fs.current.mkdir(path)
        return path

    def dead_scratch(self) -> list[Path]:
        """The locks of scratch directories whose owners are gone; one whose lock's file is gone as well counts too."""
        # An owner has its lock before its directory.
        found = {path.with_suffix(".lock") for path in (self.root / "scratch").glob("*")}
        return [path for path in sorted(found) if not is_held(path)]

    def clean_scratch(self) -> int:
        """Remove what dead processes left behind; returns the number of directories."""
        return sum(_remove_scratch(FileLock(path), self.root) for path in self.dead_scratch())

    def close(self) -> None:
        """Remove this process's scratch and write the memos.  The store can still be used afterwards."""
        self.stat_cache.save()
        self.cas.memo.flush()
        with self._scratch_guard:
            if self._scratch_lock is None or self._scratch_pid != os.getpid():
                return
            with contextlib.suppress(OSError, StoreError):
                self.cas.memo.compact(self._scratch_lock.path.with_suffix(""))
            _remove_scratch(self._scratch_lock, self.root)
            self._scratch_lock = None
            self._idle_work.clear()
        atexit.unregister(self.close)

    # Layout.

    def _require_own(self) -> None:
        """Raise StoreError where a part of the store is a link or no file at all.

        Whoever shares the store may have put it there, and what is written and removed behind it is somebody else's.
        """
        try:
            with os.scandir(self.root) as entries:
                suspects = [
                    Path(one.path)
                    for one in entries
                    if not one.is_file(follow_symlinks=False)
                    and not one.is_dir(follow_symlinks=one.name == _MAY_BE_LINK)
                ]
        except OSError:
            # There is no store yet, or its version cannot be read either, which reports the cause.
            return
        for path in suspects:
            # A temporary file of another process may have gone meanwhile, and is nothing then.
            if path.is_symlink() or (path.exists() and not path.is_file()):
                raise StoreError(
                    "a part of the cache is no directory or file of its own",
                    where=str(path),
                    why=f"it is a link to {path.readlink()}"
                    if path.is_symlink()
                    else "it is a pipe, a socket or a device",
                    fix="find out who put it there, and remove it; llmbuild makes its own",
                )

    def _check_version(self) -> None:
        path = self.root / "version"
        try:
            text = path.read_text(encoding="ascii").strip()
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:
            raise StoreError("cannot read the cache", where=str(path), why=str(error)) from error
        # A power loss can leave an empty file; nothing was in the cache then.
        if text and text != str(LAYOUT_VERSION):
            raise StoreError(
                "the cache was made by another version of llmbuild",
                where=str(path),
                why=f"its layout is {text}, this llmbuild uses {LAYOUT_VERSION}",
                fix="choose another directory with LLMBUILD_CACHE, or remove this one",
            )

    def _prepare(self) -> None:
        self._require_own()
        with fs.translate_errors("make the cache directory", self.root):
            for name in ("blobs", "traces", "actions", "logs", "locks", "scratch", "projects"):
                fs.current.mkdir(self.root / name)
            version = self.root / "version"
            if not version.exists() or not version.stat().st_size:
                files.write_atomic(version, f"{LAYOUT_VERSION}\n".encode(), durable=True)
        self.clean_scratch()


def _remove_scratch(lock: FileLock, root: Path) -> bool:
    """Remove a scratch directory and its lock, which is taken if it is free; whether both are gone.

    Where that fails (a disk, or a child of a dead process that still writes), the lock is free and the next cleaning
    finds it.
    """
    try:
        if not lock.held and not lock.try_acquire("cleaning"):
            return False
        files.remove_tree(lock.path.with_suffix(""), root)
        lock.release(remove=True)
    except (StoreError, OSError):
        lock.release()
        return False
    return True


def _emptied(directory: str) -> bool:
    """Empty a directory; returns whether it is a plain empty directory then.  Raises OSError."""
    status = os.lstat(directory)
    if stat.S_IMODE(status.st_mode) & 0o700 != 0o700 or not stat.S_ISDIR(status.st_mode):
        return False
    for name in os.listdir(directory):  # noqa: PTH208 - a name is enough.
        files.remove_tree(f"{directory}/{name}", directory)
    return True
