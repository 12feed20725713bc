"""Death and disk errors at every file operation of a collection, a repair, an export and an import."""

from __future__ import annotations

import errno
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from llmbuild.engine import fs
from llmbuild.engine.outcome import Status
from llmbuild.engine.store import Store
from llmbuild.engine.task import Task
from llmbuild.engine.upkeep.archive import export, import_archive
from llmbuild.engine.upkeep.audit import audit
from llmbuild.engine.upkeep.gc import Retention, collect
from llmbuild.errors import StoreError
from tests.helpers.engine_build import build, join_task, text_of, write_task
from tests.helpers.faulty_fs import FaultyFs, Killed

WAYS = [("kill", 0), ("error", errno.ENOSPC), ("error", errno.EIO)]


def graph() -> list[Task]:
    return [write_task("a", {"x": "1", "y": "2"}), join_task("b", "b", "a"), join_task("c", "c", "a", "b")]


def at_every_operation(
    monkeypatch: pytest.MonkeyPatch,
    way: str,
    number: int,
    work: Callable[[], object],
    after: Callable[[], None],
    points: range = range(500),
) -> int:
    """Run `work` with a fault at operation 0, 1, 2, … until it has no more; `after` looks at what each run left."""
    for at in points:
        faulty = FaultyFs(at, way, number)  # type: ignore[arg-type]
        with monkeypatch.context() as patch:
            patch.setattr(fs, "current", faulty)
            try:
                work()
            except (Killed, StoreError):
                assert faulty.fired
        after()
        if not faulty.fired:
            return at
    raise AssertionError("the work never ends")


def copied(source: Path, dest: Path) -> Store:
    shutil.rmtree(dest, ignore_errors=True)
    shutil.copytree(source, dest, symlinks=True)
    return Store(dest)


def right(root: Path) -> None:
    """The next build completes with the right bytes, and then nothing is wrong."""
    store = Store(root)
    result, _ = build(store, graph())
    assert result.ok
    assert text_of(store, result, "c") == "c|1|2|b|1|2"
    store.close()
    assert [one for one in audit(store).findings if one.fault != "stray-file"] == []


@pytest.mark.parametrize(("way", "number"), WAYS)
def test_collections(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str, number: int) -> None:
    build(store, graph())
    store.close()
    root = tmp_path / "copy"
    policy = Retention(max_size=0, keep=0, grace=0)

    def work() -> None:
        copied(store.root, root)
        collect(Store(root), policy, lambda _project: None, now=time.time() + 3600)

    points = at_every_operation(monkeypatch, way, number, work, lambda: right(root))
    assert points > 15


@pytest.mark.parametrize(("way", "number"), WAYS)
def test_repairs(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str, number: int) -> None:
    result, _ = build(store, graph())
    store.close()
    tree = result.outcomes["a"].tree
    assert tree is not None
    for entry in tree.files:
        path = store.cas.blob_path(entry.digest)
        path.unlink()
        path.write_bytes(b"wrong")
    root = tmp_path / "copy"

    def work() -> None:
        copied(store.root, root)
        audit(Store(root), repair=True)

    assert at_every_operation(monkeypatch, way, number, work, lambda: right(root)) > 2


@pytest.mark.parametrize(("way", "number"), WAYS)
def test_exports(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str, number: int) -> None:
    build(store, graph())
    store.close()
    archive = tmp_path / "cache.tar"
    export(store, store.traces.names(), archive)
    whole = archive.read_bytes()
    archive.write_bytes(b"an earlier one")

    def after() -> None:
        assert archive.read_bytes() in (b"an earlier one", whole)

    at_every_operation(
        monkeypatch, way, number, lambda: export(Store(store.root), store.traces.names(), archive), after
    )
    assert archive.read_bytes() == whole


@pytest.mark.parametrize(("way", "number"), [*WAYS, ("short", 0)])
def test_imports(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str, number: int) -> None:
    build(store, graph())
    store.close()
    archive = tmp_path / "cache.tar"
    export(store, store.traces.names(), archive)
    root = tmp_path / "copy"

    def work() -> None:
        shutil.rmtree(root, ignore_errors=True)
        import_archive(Store(root), archive)

    # The ways share the points, which are much alike here: a few operations for each member.
    mine = range([*WAYS, ("short", 0)].index((way, number)), 500, 4)
    assert at_every_operation(monkeypatch, way, number, work, lambda: right(root), mine) > 40
    shutil.rmtree(root)
    import_archive(Store(root), archive)
    assert build(Store(root), graph())[0].labels(Status.CACHED) == ["a", "b", "c"]
