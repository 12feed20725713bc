"""Nothing that a record says is a place to write to or to remove from: a tree beside the store stays as it is."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmbuild.canonical import Digest, digest_bytes, digest_json
from llmbuild.engine.bind import bind
from llmbuild.engine.lookup import Cached, Miss, lookup
from llmbuild.engine.store import Store
from llmbuild.engine.task import Task
from llmbuild.engine.upkeep.archive import import_archive
from llmbuild.engine.upkeep.audit import audit
from llmbuild.engine.upkeep.gc import DAY, Retention, collect
from llmbuild.engine.upkeep.survey import survey
from llmbuild.errors import InputError, StoreError
from llmbuild.executors.local import LocalExecutor
from tests.helpers.crafted import canonical, picture, sealed, write_archive
from tests.helpers.engine_build import build, write_task

KEY = {"inputs": {}, "kind": "write", "params": {"files": {"a": "x"}}, "tools": {}, "version": 1}
ACTION = digest_json(KEY)
EMPTY = digest_bytes(b"[]")


@pytest.fixture
def guard(tmp_path: Path) -> Iterator[Path]:
    """A directory beside the store with files that nothing may touch."""
    root = tmp_path / "guard"
    (root / "directory" / "inner").mkdir(parents=True)
    (root / "directory" / "inner" / "file").write_text("precious")
    (root / "file").write_text("precious too")
    before = picture(root)
    yield root
    assert picture(root) == before


def trace_fields(**fields: object) -> dict[str, object]:
    return {
        "action": ACTION,
        "cpu_s": 0.5,
        "finished": 1.0,
        "format": 1,
        "input_size": 0,
        "key": KEY,
        "kind": "write",
        "label": "a",
        "log": None,
        "output": EMPTY,
        "output_size": 0,
        "peak_rss": 1,
        "project": "p",
        "wall_s": 0.5,
        **fields,
    }


def places(guard: Path) -> list[str]:
    """Digests that would be paths to the guard tree, from `blobs/` and `traces/` of a store beside it."""
    deep = "../" * 40
    return [
        "..//../guard/directory",
        "..//../guard/file",
        "..//../../guard/directory",
        f"..//{deep}{str(guard)[1:]}/directory",
        f"{str(guard)[:2]}{str(guard)[2:]}/file",
    ]


def test_a_tree_of_an_archive_names_no_places(guard: Path, tmp_path: Path) -> None:
    for number, place in enumerate(places(guard)):
        tree = canonical([["f", place, 9, False]])
        blobs = [tree]
        traces = {ACTION: sealed(trace_fields(output=digest_bytes(tree), output_size=9))}
        archive = write_archive(tmp_path / f"{number}.tar", blobs, traces=traces)
        store = Store(tmp_path / f"store{number}")
        with pytest.raises(InputError, match="cannot be imported"):
            import_archive(store, archive)
        assert store.traces.names() == []


@pytest.mark.parametrize("field", ["output", "log", "action"])
def test_a_trace_of_an_archive_names_no_places(guard: Path, tmp_path: Path, field: str) -> None:
    for number, place in enumerate(places(guard)):
        traces = {ACTION: sealed(trace_fields(**{field: place}))}
        archive = write_archive(tmp_path / f"{number}.tar", [b"[]"], traces=traces)
        store = Store(tmp_path / f"store{number}")
        with pytest.raises(InputError, match="cannot be imported"):
            import_archive(store, archive)
        assert store.traces.names() == []


def test_a_trace_of_a_shared_store_names_no_places(store: Store, guard: Path) -> None:
    tasks = [write_task("a", {"x": "1"})]
    build(store, tasks)
    (trace,) = store.traces.all()
    path = store.traces.path(trace.action)
    fields = json.loads(trace.to_bytes().splitlines()[0])
    for place in places(guard):
        path.write_bytes(sealed({**fields, "output": place}))
        assert lookup(store, trace.action) is Miss.NEVER
    assert build(store, tasks)[0].ok


DEEP = b"[" * 100_000


@pytest.mark.parametrize(
    "tree",
    [
        DEEP,
        b'[["a",5,3,true]]',
        b'[["a",null,3,true]]',
        canonical([["a", "f" * 5000, 3, True]]),
        canonical([["../a", EMPTY, 0, False]]),
        canonical([["/a", EMPTY, 0, False]]),
        canonical([["a\u001b[2J", EMPTY, 0, False]]),
        canonical([["x" * 256, EMPTY, 0, False]]),
        canonical([["a", EMPTY, -1, False]]),
        canonical([["a", EMPTY, True, False]]),
        canonical([["a", EMPTY, 1 << 63, False]]),
        canonical([["a", EMPTY, 0, 1]]),
        canonical([["a", EMPTY, 0, False], ["a", EMPTY, 0, False]]),
        canonical([["a", EMPTY, 2, False], ["a/b", EMPTY, 2, False]]),
        b"{}",
        b"7",
    ],
)
def test_a_tree_that_does_not_hold_is_refused(tmp_path: Path, tree: bytes) -> None:
    traces = {ACTION: sealed(trace_fields(output=digest_bytes(tree)))}
    archive = write_archive(tmp_path / "a.tar", sorted({tree, b"[]"}), traces=traces)
    store = Store(tmp_path / "there")
    with pytest.raises(InputError, match="cannot be imported"):
        import_archive(store, archive)
    assert store.traces.names() == []


WRONG_FIELDS = [
    ("kind", 7),
    ("kind", "a\u0007"),
    ("label", None),
    ("label", "a\u001b]0;x"),
    ("label", "x" * 5000),
    ("project", ["p"]),
    ("finished", "today"),
    ("finished", True),
    ("wall_s", -1.0),
    ("cpu_s", None),
    ("peak_rss", 1.5),
    ("input_size", "7"),
    ("output_size", [1]),
    ("output_size", -1),
    ("output_size", 1 << 63),
    ("output", 7),
    ("log", 7),
    ("key", {}),
    ("key", []),
    ("key", {**KEY, "params": {"files": {"a": "y"}}}),
    ("key", {**KEY, "inputs": {"../x": {"form": "tree", "digest": EMPTY}}}),
    ("more", 1),
]


@pytest.mark.parametrize(("field", "value"), WRONG_FIELDS)
def test_a_trace_whose_fields_do_not_hold_is_refused_and_missed(
    store: Store, tmp_path: Path, field: str, value: object
) -> None:
    bad = sealed(trace_fields(**{field: value}))
    archive = write_archive(tmp_path / "a.tar", [b"[]"], traces={ACTION: bad})
    with pytest.raises(InputError, match="cannot be imported"):
        import_archive(store, archive)
    build(store, [write_task("a", {"a": "x"})])
    path = store.traces.path(ACTION)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bad)
    # What a user does with such a store goes on, and says what is wrong with it.
    assert lookup(store, ACTION) is Miss.NEVER
    assert ACTION in survey(store).damaged
    assert store.index.runs("write")
    assert [one.fault for one in audit(store, repair=True).findings] == ["damaged-trace"]
    assert not audit(store).findings


@pytest.mark.parametrize(
    "data", [DEEP, b"7", b"{}", canonical({"key": KEY, "hints": [], "label": "a", "project": "p"})]
)
def test_an_action_that_does_not_hold_is_refused(store: Store, tmp_path: Path, data: bytes) -> None:
    archive = write_archive(tmp_path / "a.tar", [], actions={ACTION: data})
    with pytest.raises(InputError, match="cannot be imported"):
        import_archive(store, archive)
    path = store.action_path(ACTION)
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    with pytest.raises(StoreError, match="damaged"):
        store.get_action(ACTION)
    assert [one.fault for one in audit(store, repair=True).findings] == ["damaged-action"]


def test_records_that_earlier_versions_wrote_are_read_and_written_alike(store: Store) -> None:
    # The bytes as commit 310ec8a wrote them.
    trace = sealed(trace_fields())
    path = store.traces.path(ACTION)
    path.parent.mkdir(parents=True)
    path.write_bytes(trace)
    found = store.traces.get(ACTION)
    assert found is not None
    assert found.to_bytes() == trace
    assert isinstance(lookup(store, ACTION), Cached)


@pytest.mark.parametrize("name", ["../../../guard/new", "a/b", "..", "/tmp/x"])
def test_an_input_of_an_action_is_laid_out_nowhere_else(guard: Path, store: Store, tmp_path: Path, name: str) -> None:
    key = {**KEY, "inputs": {name: {"form": "tree", "digest": EMPTY}}}
    record = canonical({"key": key, "hints": {}, "label": "a", "project": "p"})
    archive = write_archive(tmp_path / "a.tar", [b"[]"], actions={digest_json(key): record})
    with pytest.raises(InputError, match="cannot be imported"):
        import_archive(store, archive)


PARTS = ["actions", "index", "locks", "logs", "partial", "projects", "resume", "scratch", "traces", "stat.json"]


@pytest.mark.parametrize("name", PARTS)
def test_a_part_of_a_store_that_is_a_link_is_refused(guard: Path, store: Store, name: str) -> None:
    build(store, [write_task("a", {"x": "1"})])
    store.close()
    place = store.root / name
    if place.exists():
        place.rename(store.root.parent / "aside")
    place.symlink_to(guard / "directory")
    with pytest.raises(StoreError, match="no directory or file of its own"):
        Store(store.root)
    # What has opened the store before removes nothing there either.
    with pytest.raises(StoreError, match="no directory or file of its own"):
        collect(store, Retention(max_size=0, grace=0.0), lambda _project: None, now=time.time() + 60 * DAY)


@pytest.mark.parametrize("name", ["stat.json", "verified", "index", "traces/aa"])
def test_a_pipe_in_a_store_is_waited_for_by_nobody(store: Store, name: str) -> None:
    (trace,) = built_once(store)
    path = store.root / name if name != "traces/aa" else store.traces.path(trace)
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    if path.parent == store.root:
        with pytest.raises(StoreError, match="no directory or file of its own"):
            Store(store.root)
    else:
        assert lookup(store, trace) is Miss.NEVER
        assert [one.fault for one in audit(store, repair=True).findings] == ["damaged-trace"]


def built_once(store: Store) -> list[Digest]:
    build(store, [write_task("a", {"x": "1"})])
    store.close()
    return store.traces.names()


def test_blobs_may_be_a_link_and_nothing_but_blobs_is_removed_behind_it(guard: Path, store: Store) -> None:
    (trace,) = built_once(store)
    store.cas.root.rename(store.root.parent / "disk")
    store.cas.root.symlink_to(store.root.parent / "disk")
    assert isinstance(lookup(Store(store.root), trace), Cached)
    store.cas.root.unlink()
    store.cas.root.symlink_to(guard)
    with pytest.raises(StoreError, match="cannot repair the cache"):
        audit(Store(store.root), repair=True)


@pytest.mark.parametrize("name", ["cache.db", "cache.db-wal", "aa"])
def test_the_index_is_no_way_to_another_file(guard: Path, store: Store, name: str) -> None:
    built_once(store)
    path = store.root / "index" / name
    path.unlink(missing_ok=True)
    path.symlink_to(guard / "directory" / "new")
    assert len(Store(store.root).index.runs("write")) == 1


def test_what_a_killed_task_left_is_no_way_to_another_file(guard: Path, store: Store) -> None:
    task = Task("count", "count", 1, {"steps": 1}, {}, {})
    action = bind(task, {}, store.cas.get_bytes).action.digest
    for link in (store.resume_path(action), store.resume_path(action) / "0"):
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(guard / "directory" if link.name == action else guard / "directory" / "new")
        build(store, [task])
        store.traces.remove(action)
        assert not link.is_symlink()


def test_a_log_is_no_way_to_another_file(guard: Path, store: Store) -> None:
    task = write_task("a", {"x": "1"})
    log = store.log_path(bind(task, {}, store.cas.get_bytes).action.digest)
    log.parent.mkdir(parents=True)
    log.symlink_to(guard / "file")
    assert build(store, [task], executor=LocalExecutor(store))[0].ok
