"""The index over traces is a cache: losing it or damaging it changes no answer."""

from __future__ import annotations

import errno
import json
import sqlite3
import zlib
from pathlib import Path

import pytest

from llmbuild.engine import fs, warning
from llmbuild.engine.index import TraceIndex
from llmbuild.engine.store import Store
from llmbuild.engine.trace import Trace
from tests.helpers.engine_build import build, write_task
from tests.helpers.engine_traces import make_trace


def fill(store: Store) -> list[Trace]:
    traces = [
        make_trace("a", label="t", finished=1.0),
        make_trace("b", label="t", finished=3.0),
        make_trace("c", label="t", finished=2.0),
        make_trace("d", label="u", kind="combine", finished=4.0),
    ]
    for trace in traces:
        store.traces.put(trace)
    return traces


def check(store: Store, traces: list[Trace]) -> None:
    index = Store(store.root).index
    last = index.last("p", "t")
    assert last is not None
    assert last.action == traces[1].action
    assert [run.action for run in index.runs("write")] == [traces[0].action, traces[2].action, traces[1].action]
    assert [run.wall_s for run in index.runs("combine")] == [0.5]
    assert index.last("p", "nothing") is None
    assert index.last("q", "t") is None
    assert index.runs("nothing") == index.recent("nothing") == []
    assert index.recent("write") == index.runs("write")


def test_added_traces_are_found(store: Store) -> None:
    traces = fill(store)
    store.index.add(traces)
    check(store, traces)


def test_traces_of_a_killed_build_are_taken_in(store: Store) -> None:
    traces = fill(store)
    store.index.add(traces[:1])
    check(store, traces)


def test_removed_traces_are_forgotten(store: Store) -> None:
    traces = fill(store)
    store.index.add(traces)
    store.traces.remove(traces[3].action)
    assert Store(store.root).index.runs("combine") == []
    assert Store(store.root).index.last("p", "u") is None


@pytest.mark.parametrize("cut", [0, 1, 15, 16, 100, 1000, 4095, 4096, 5000, 9000, 20000])
def test_a_truncated_database_is_rebuilt(store: Store, cut: int) -> None:
    traces = fill(store)
    store.index.add(traces)
    path = store.root / "index" / "cache.db"
    data = path.read_bytes()
    path.write_bytes(data[: min(cut, len(data) - 1)])
    check(store, traces)


@pytest.mark.parametrize("start", [0, 20, 100, 4096, 8192])
def test_a_scribbled_database_is_rebuilt(store: Store, start: int) -> None:
    traces = fill(store)
    store.index.add(traces)
    path = store.root / "index" / "cache.db"
    data = bytearray(path.read_bytes())
    data[start : start + 2000] = b"\xa5" * len(data[start : start + 2000])
    path.write_bytes(bytes(data))
    for extra in ("cache.db-wal", "cache.db-shm"):
        (store.root / "index" / extra).unlink(missing_ok=True)
    check(store, traces)


def test_a_lost_or_blocked_index_is_rebuilt(store: Store) -> None:
    traces = fill(store)
    store.index.add(traces)
    for path in sorted((store.root / "index").iterdir()):
        path.unlink()
    check(store, traces)
    for path in sorted((store.root / "index").iterdir()):
        path.unlink()
    (store.root / "index").rmdir()
    (store.root / "index").write_text("a file is in the way")
    check(store, traces)


def test_the_values_are_json(store: Store) -> None:
    store.index.add(fill(store))
    with sqlite3.connect(store.root / "index" / "cache.db") as connection:
        rows = connection.execute("select key, value from Cache").fetchall()
    connection.close()
    assert rows
    for key, value in rows:
        json.loads(zlib.decompress(key))
        json.loads(zlib.decompress(value))


def test_history_remembers_and_survives_damage(store: Store) -> None:
    history = store.history("p")
    assert history.last() == {}
    history.update({"a": "1" * 64, "b": "2" * 64})
    history.update({"a": "3" * 64})
    assert store.history("p").last() == {"a": "3" * 64, "b": "2" * 64}
    assert store.history("q").last() == {}
    stat = history.path.stat()
    store.history("p").update({"a": "3" * 64})
    assert history.path.stat() == stat
    for text in (b"", b"[]", b'{"last": 3}', history.path.read_bytes()[:-3]):
        Path(history.path).write_bytes(text)
        assert store.history("p").last() == {}


@pytest.mark.parametrize(
    "error",
    [
        sqlite3.OperationalError("attempt to write a readonly database"),
        sqlite3.OperationalError("database or disk is full"),
        sqlite3.OperationalError("database is locked"),
        OSError(errno.EROFS, "read-only"),
    ],
)
def test_an_index_that_fails_is_a_warning_and_decides_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    class ReadOnly(fs.FileSystem):
        def unlink(self, path: fs.StrPath) -> None:
            if "/index" in str(path):
                raise OSError(errno.EROFS, "read-only")
            super().unlink(path)

    def refuse(_index: TraceIndex) -> object:
        raise error

    fill(store)
    (store.root / "index").mkdir(exist_ok=True)
    (store.root / "index" / "cache.db").touch()
    monkeypatch.setattr(warning, "_said", set())
    monkeypatch.setattr(fs, "current", ReadOnly())
    monkeypatch.setattr(TraceIndex, "_open", refuse)
    assert store.index.recent("write") == store.index.runs("write") == []
    assert store.index.latest("p") == {}
    assert store.index.last("p", "t") is None
    result, _ = build(store, [write_task("a", {"x": "1"})])
    assert result.ok
    said = capsys.readouterr().err
    assert said.count("warning: ") == said.count("cannot use the index of the cache") == 1


def test_a_history_that_cannot_be_written_is_a_warning(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Full(fs.FileSystem):
        def replace(self, source: fs.StrPath, dest: fs.StrPath) -> None:
            if "/projects/" in str(dest):
                raise OSError(errno.ENOSPC, "full")
            super().replace(source, dest)

    monkeypatch.setattr(warning, "_said", set())
    monkeypatch.setattr(fs, "current", Full())
    assert build(store, [write_task("a", {"x": "1"})])[0].ok
    assert "warning: " in capsys.readouterr().err


def test_rows_of_wrong_types_are_thrown_away(store: Store) -> None:
    traces = fill(store)
    store.index.add(traces)
    import diskcache

    bad = ["x", 7, None, [], "many", "long", {}, -1, "yesterday", True]
    for key, value in (
        (f"run:{traces[0].action}", bad),
        ("recent:write", [bad]),
        ("last:p:t", 7),
        ("recent:combine", 5),
    ):
        with diskcache.Cache(str(store.root / "index"), disk=diskcache.JSONDisk) as cache:
            cache.set(key, value)
        fresh = Store(store.root)
        assert len(fresh.index.runs("write")) == 3
        assert len(fresh.index.recent("write")) == 3
        assert len(fresh.index.recent("combine")) == 1
        assert fresh.index.latest("p")["t"] == traces[1].action
