"""Nothing that a record says is a place to write to or to remove from: a tree beside the store stays as it is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmbuild.canonical import digest_bytes, digest_json
from llmbuild.engine.archive import import_archive
from llmbuild.engine.lookup import Miss, lookup
from llmbuild.engine.store import Store
from llmbuild.errors import InputError
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
