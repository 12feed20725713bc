"""More than 10,000 faults: a build that dies or fails at any operation, and files that are cut off at any byte.

After each one: no wrong byte in the project, and the next build completes and is right, without help.
"""

from __future__ import annotations

import errno
import io
import os
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest

from llmbuild.canonical import Digest
from llmbuild.engine import fs
from llmbuild.engine.executor import TaskFailure
from llmbuild.engine.kind import Progress
from llmbuild.engine.outcome import Status
from llmbuild.engine.store import Store
from llmbuild.engine.task import Files, InputRef, JsonFields, Task
from llmbuild.engine.upkeep.gc import Retention, collect
from llmbuild.errors import ExitCode, LlmbuildError, StoreError
from llmbuild.executors.inline import InlineExecutor
from tests.helpers import engine_kinds
from tests.helpers.engine_build import build, install_all, join_task, snapshot, write_task
from tests.helpers.faulty_fs import FaultyFs, Killed, Way
from tests.helpers.ram import UnsyncedFs, ram_directory

AT_LEAST = {
    "first": 480,
    "incremental": 475,
    "restore": 30,
    "evicted": 170,
    "parallel": 400,
    "collection": 80,
    "twice": 400,
    "full disk": 500,
    "truncated": 4000,
    "index pages": 600,
    "index": 6600,
}
"""How many faults each test injects at least; they count them and assert it."""


def test_the_faults_are_more_than_ten_thousand() -> None:
    assert sum(AT_LEAST.values()) > 10_000


# A project of four tasks, in a store.


def tasks(text: str) -> list[Task]:
    return [
        write_task("a", {"x": text, "sub/c.json": f'{{"v": "{text}", "w": 1}}'}, dest="dist/m"),
        join_task("b", "b", "a", InputRef("a", JsonFields("sub/c.json", ("v",))), dest="dist/libs/b.so"),
        join_task("c", "c", "b", InputRef("a", Files(("x",))), dest="dist/libs/c.so"),
    ]


def expected(text: str) -> dict[str, bytes]:
    b = f'b|{{"v": "{text}", "w": 1}}|{text}|{{"v":"{text}"}}'
    return {
        "dist/m/x": text.encode(),
        "dist/m/sub/c.json": f'{{"v": "{text}", "w": 1}}'.encode(),
        "dist/libs/b.so": b.encode(),
        "dist/libs/c.so": f"c|{b}|{text}".encode(),
    }


class Memoryless:
    """In place of the index over traces, which has faults of its own in `test_the_index_cut_off_at_every_byte`."""

    def add(self, traces: object) -> None:
        pass


class Threads:
    """An executor that runs several tasks at once in this process."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def run(self, action: Digest, progress: Progress) -> TaskFailure | None:
        return InlineExecutor(self.store).run(action, progress)

    def expect(self, kind: str, count: int) -> None:
        pass

    def terminate(self) -> None:
        pass


def build_and_install(root: Path, text: str, *, jobs: int = 1, index: bool = False) -> list[str]:
    """A whole build as one process does it, without a clean end of the process; returns the labels that ran."""
    store = Store(root / "store")
    if not index:
        store.__dict__["index"] = Memoryless()
    try:
        plan = tasks(text)
        if jobs > 1:
            plan += [write_task(f"w{n}", {f"w{n}": "1"}) for n in range(3)]
        with redirect_stdout(io.StringIO()):
            result, _ = build(store, plan, jobs=jobs, executor=Threads(store))
        for outcome in result.outcomes.values():
            if outcome.failure is not None:
                raise outcome.failure.to_error()
        install_all(store, root / "project", plan, result)
        return result.labels(Status.RAN)
    finally:
        abandon(store)


def abandon(store: Store) -> None:
    """Let the store's locks go as the death of its process would, without any clean-up."""
    lock = store._scratch_lock
    store._scratch_lock = None
    if lock is not None:
        lock.release()


def no_wrong_byte(root: Path, *texts: str) -> None:
    for path, data in snapshot(root / "project").items():
        # A temporary file of a killed install is not an output; the next build removes it.
        if ".llmbuild-tmp-" not in path:
            assert data in [expected(text)[path] for text in texts], path


def check_recovery(root: Path, text: str, *, jobs: int = 1) -> None:
    build_and_install(root, text, jobs=jobs)
    assert snapshot(root / "project") == expected(text)
    assert build_and_install(root, text, jobs=jobs) == []


@pytest.fixture(autouse=True, scope="module")
def _kinds() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLMBUILD_TASK_MODULES", engine_kinds.MODULE)
        patch.setattr(fs, "current", UnsyncedFs())
        yield


# Faults at operations.


class ManyFaults(FaultyFs):
    """FaultyFs for several threads; and with `full`, a disk that takes nothing any more from operation `at` on."""

    def __init__(self, at: int = -1, way: Way = "kill", number: int = 0, *, full: bool = False) -> None:
        super().__init__(at, way, number)
        self._full = full
        self._guard = threading.Lock()

    def _step(self) -> bool:
        with self._guard:
            return super()._step()

    def _needs_space(self) -> None:
        if self._full and self.fired:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    @property
    def reached(self) -> bool:
        """Whether there was an operation `at`."""
        return self.count > self._at

    def _fail(self) -> None:
        if self._way == "short":
            # Only a write can be short; any other operation works.
            self.fired = False
            return
        super()._fail()

    def touch(self, path: fs.StrPath) -> None:
        if self._step():
            self._fail()
        super().touch(path)

    def create(self, path: fs.StrPath) -> int:
        self._needs_space()
        return super().create(path)

    def write(self, fd: int, data: bytes | memoryview) -> int:
        self._needs_space()
        return super().write(fd, data)

    def append(self, path: fs.StrPath, data: bytes) -> None:
        self._needs_space()
        super().append(path, data)

    def mkdir(self, path: fs.StrPath) -> None:
        if not Path(path).is_dir():
            self._needs_space()
        super().mkdir(path)


@contextmanager
def faulty(at: int, way: Way, number: int, *, full: bool = False) -> Iterator[ManyFaults]:
    before = fs.current
    fs.current = injected = ManyFaults(at, way, number, full=full)
    try:
        yield injected
    finally:
        fs.current = before


def attempt(at: int, way: Way, number: int, work: Callable[[], object], *, full: bool = False) -> ManyFaults:
    """Do the work with one fault; returns the file system, which tells whether it happened."""
    with faulty(at, way, number, full=full) as injected:
        try:
            work()
        except Killed:
            assert way == "kill"
        except LlmbuildError as error:
            assert way == "error"
            assert isinstance(error, StoreError) or error.exit_code == ExitCode.STORE, error
            assert str(error)
    return injected


@dataclass(frozen=True)
class Fault:
    way: Way
    number: int = 0

    def __str__(self) -> str:
        return errno.errorcode.get(self.number, self.way)


FAULTS = (Fault("kill"), Fault("error", errno.ENOSPC), Fault("error", errno.EIO), Fault("short"))
SOME = FAULTS[:2]


def each_operation(
    prepare: Callable[[Path], None],
    work: Callable[[Path], object],
    check: Callable[[Path, int], None],
    faults: tuple[Fault, ...] = FAULTS,
    *,
    full: bool = False,
) -> int:
    """Inject every fault at every operation of the work, each in a fresh directory; returns how many."""
    count = 0
    for fault in faults:
        at, reached = 0, True
        while reached:
            with ram_directory() as root:
                (root / "project").mkdir()
                prepare(root)
                injected = attempt(at, fault.way, fault.number, lambda root=root: work(root), full=full)
                reached = injected.reached
                if injected.fired or not reached:
                    count += injected.fired
                    check(root, at)
            at += 1
    return count


def nothing(root: Path) -> None:
    pass


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_a_first_build(fault: Fault) -> None:
    def check(root: Path, at: int) -> None:
        no_wrong_byte(root, "one")
        check_recovery(root, "one")

    count = each_operation(nothing, lambda root: build_and_install(root, "one"), check, (fault,))
    assert count >= (10 if fault.way == "short" else AT_LEAST["first"] // 3 - 5)


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_an_incremental_build(fault: Fault) -> None:
    def check(root: Path, at: int) -> None:
        no_wrong_byte(root, "one", "two")
        # Going back is as good as going on.
        check_recovery(root, ("one", "two")[at % 2])

    count = each_operation(
        lambda root: build_and_install(root, "one") and None,  # type: ignore[func-returns-value]
        lambda root: build_and_install(root, "two"),
        check,
        (fault,),
    )
    assert count >= (10 if fault.way == "short" else AT_LEAST["incremental"] // 3 - 5)


def test_a_build_that_restores_what_the_user_deleted_and_edited() -> None:
    def prepare(root: Path) -> None:
        build_and_install(root, "one")
        (root / "project/dist/m/x").unlink()
        edited = root / "project/dist/libs/b.so"
        edited.unlink()
        edited.write_bytes(b"edited")

    def check(root: Path, at: int) -> None:
        edited = root / "project/dist/libs/b.so"
        if edited.is_file() and edited.read_bytes() == b"edited":
            edited.unlink()
        no_wrong_byte(root, "one")
        check_recovery(root, "one")

    assert each_operation(prepare, lambda root: build_and_install(root, "one"), check, SOME) >= AT_LEAST["restore"]


def test_a_build_that_replaces_evicted_and_corrupt_blobs() -> None:
    def prepare(root: Path) -> None:
        build_and_install(root, "one")
        for number, path in enumerate(sorted((root / "store" / "blobs").glob("??/*"))):
            data = path.read_bytes()
            path.unlink()
            if number % 2:
                path.write_bytes(bytes([data[0] ^ 1]) + data[1:])

    def check(root: Path, at: int) -> None:
        no_wrong_byte(root, "one")
        check_recovery(root, "one")

    assert each_operation(prepare, lambda root: build_and_install(root, "one"), check, SOME) >= AT_LEAST["evicted"]


def test_a_build_of_several_tasks_at_once() -> None:
    def check(root: Path, at: int) -> None:
        no_wrong_byte(root, "one")
        check_recovery(root, "one", jobs=3)

    count = each_operation(nothing, lambda root: build_and_install(root, "one", jobs=3), check, SOME)
    assert count >= AT_LEAST["parallel"]


def test_a_collection() -> None:
    def prepare(root: Path) -> None:
        for text in ("one", "two"):
            build_and_install(root, text)

    def work(root: Path) -> None:
        store = Store(root / "store")
        try:
            # In a month from now nothing is in use, and all may go.
            collect(store, Retention(max_size=0, grace=0.0), lambda _project: None, now=time.time() + 30 * 86400)
        finally:
            abandon(store)

    def check(root: Path, at: int) -> None:
        no_wrong_byte(root, "two")
        check_recovery(root, ("one", "two")[at % 2])

    assert each_operation(prepare, work, check, SOME) >= AT_LEAST["collection"]


def test_a_disk_that_is_full_from_some_operation_on() -> None:
    def check(root: Path, at: int) -> None:
        no_wrong_byte(root, "one", "two")
        check_recovery(root, "two")

    def prepare(root: Path) -> None:
        build_and_install(root, "one")

    fault = (Fault("error", errno.ENOSPC),)
    count = each_operation(nothing, lambda root: build_and_install(root, "two"), check, fault, full=True)
    count += each_operation(prepare, lambda root: build_and_install(root, "two"), check, fault, full=True)
    count += each_operation(nothing, lambda root: build_and_install(root, "two", jobs=3), check, fault, full=True)
    assert count >= AT_LEAST["full disk"]


def test_a_recovery_that_dies_too() -> None:
    generator = random.Random(5)
    count = 0
    while count < AT_LEAST["twice"]:
        with ram_directory() as root:
            (root / "project").mkdir()
            texts = [generator.choice(("one", "two")) for _ in range(3)]
            for text in texts:
                at = generator.randrange(180)
                count += attempt(at, "kill", 0, lambda root=root, text=text: build_and_install(root, text)).fired
                no_wrong_byte(root, *texts)
            check_recovery(root, texts[0])


# Files cut off.


def cut(path: Path, size: int) -> None:
    """What a power loss can leave of a file whose content had not reached the disk."""
    data = path.read_bytes()
    mode = path.stat().st_mode
    path.unlink()
    path.write_bytes(data[:size])
    path.chmod(mode)


PARTS = 4


@pytest.mark.parametrize("part", range(PARTS))
def test_any_file_of_store_and_project_cut_off_at_any_byte(part: int, ram: Path) -> None:
    """Traces, action records, blobs, memos, the history, the version: everything but the outputs and the index."""
    (ram / "project").mkdir()
    build_and_install(ram, "one")
    places = [ram / "store" / name for name in ("traces", "actions", "blobs", "projects", "verified", "version")]
    places += [ram / "project" / ".llmbuild" / "installed.json"]
    paths = [path for place in places for path in ([place] if place.is_file() else sorted(place.rglob("*")))]
    sizes = [(path, size) for path in paths if path.is_file() for size in range(path.stat().st_size)]
    mine = sizes[part::PARTS]
    for number, (path, size) in enumerate(mine):
        if not path.exists():
            # A record that nothing refers to any more, such as that of an input that was evicted.
            continue
        cut(path, size)
        build_and_install(ram, "one")
        if number % 8 == 0 or path.name == "installed.json":
            assert snapshot(ram / "project") == expected("one"), (path, size)
    assert snapshot(ram / "project") == expected("one")
    assert build_and_install(ram, "one") == []
    assert len(mine) >= AT_LEAST["truncated"] // PARTS


def test_a_trace_cut_off_or_changed_anywhere_is_none(ram: Path) -> None:
    (ram / "project").mkdir()
    build_and_install(ram, "one")
    store = Store(ram / "store")
    (name, *_) = store.traces.names()
    path = store.traces.path(name)
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        assert store.traces.get(name) is None
    for at in range(len(whole)):
        for bit in range(8):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :])
            assert store.traces.get(name) is None


def cut_index(ram: Path, whole: bytes, at: int) -> None:
    """The index may be cut off wherever: what it knew is known again from the traces."""
    path = ram / "store" / "index" / "cache.db"
    for other in path.parent.iterdir():
        if other.is_file():
            other.unlink()
    path.write_bytes(whole[:at])
    run = Store(ram / "store").index.last("test", "c")
    assert run is not None, at
    assert run.label == "c"


def test_the_index_cut_off_at_any_page(ram: Path) -> None:
    """As it lies on the disk: at the first and last bytes of each page, and at every 64th byte between."""
    (ram / "project").mkdir()
    build_and_install(ram, "one", index=True)
    whole = (ram / "store" / "index" / "cache.db").read_bytes()
    page = 4096
    points = [at for at in range(len(whole)) if at % 64 == 0 or min(at % page, page - at % page) <= 16]
    for at in points:
        cut_index(ram, whole, at)
    assert len(points) >= AT_LEAST["index pages"]


@pytest.mark.parametrize("part", [0, *(pytest.param(part, marks=pytest.mark.full) for part in range(1, PARTS))])
def test_the_index_cut_off_at_every_byte(ram: Path, part: int) -> None:
    """Every length of the same index in SQLite's smallest pages, which make it small enough for that: a quarter in CI."""
    (ram / "project").mkdir()
    build_and_install(ram, "one", index=True)
    path = ram / "store" / "index" / "cache.db"
    database = sqlite3.connect(path, isolation_level=None)
    for command in ("PRAGMA journal_mode = DELETE", "PRAGMA page_size = 512", "VACUUM"):
        database.execute(command)
    database.close()
    whole = path.read_bytes()
    assert Store(ram / "store").index.last("test", "c") is not None
    points = range(part, len(whole), PARTS)
    for at in points:
        cut_index(ram, whole, at)
    assert len(points) >= AT_LEAST["index"] // PARTS
