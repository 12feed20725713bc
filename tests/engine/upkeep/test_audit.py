"""Verification of a whole store, and recovery from seeded loss and seeded bit flips."""

from __future__ import annotations

import errno
import random
from pathlib import Path

import pytest

from llmbuild.engine import fs
from llmbuild.engine.outcome import Status
from llmbuild.engine.store import Store
from llmbuild.engine.task import Task
from llmbuild.engine.upkeep.audit import audit
from llmbuild.errors import StoreError
from tests.helpers.crafted import picture
from tests.helpers.engine_build import build, install_all, join_task, snapshot, write_task

WIDTH = 60


def wide_graph() -> list[Task]:
    """Sixty writes of five files each, and joins over them."""
    writes = [
        write_task(f"w{n}", {f"f{m}": f"{n} {m} " * 20 for m in range(5)}, dest=f"dist/w{n}") for n in range(WIDTH)
    ]
    joins = [join_task(f"j{n}", str(n), f"w{n}", f"w{(n + 1) % WIDTH}", dest=f"dist/j{n}") for n in range(WIDTH)]
    return [*writes, *joins, join_task("all", "all", *(f"j{n}" for n in range(WIDTH)), dest="dist/all")]


def flip(path: Path, chosen: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[chosen.randrange(len(data))] ^= 1 << chosen.randrange(8)
    path.chmod(0o644)
    path.write_bytes(data)
    path.chmod(0o444)


def blobs(store: Store) -> list[Path]:
    return [path for path in sorted(store.cas.root.glob("*/*")) if path.stat().st_size]


@pytest.mark.parametrize("seed", range(3))
def test_loss_and_flips_are_found_and_recovered_from(store: Store, project: Path, seed: int) -> None:
    tasks = wide_graph()
    result, _ = build(store, tasks)
    install_all(store, project, tasks, result)
    expected = snapshot(project)
    chosen = random.Random(seed)
    paths = blobs(store)
    assert len(paths) > 400
    lost = set(chosen.sample(paths, len(paths) // 10))
    flipped = chosen.sample([path for path in paths if path not in lost], max(1, len(paths) // 100))
    for path in lost:
        path.unlink()
    for path in flipped:
        # A hard link into the project would carry the flip along: the store's file becomes one of its own.
        data = path.read_bytes()
        path.unlink()
        path.write_bytes(data)
        flip(path, chosen)

    found = audit(Store(store.root))
    names = {one.name for one in found.findings if one.fault == "corrupt-blob"}
    assert names == {path.parent.name + path.name for path in flipped}
    broken = {one.label for one in found.findings if one.fault == "incomplete-trace"}
    assert broken
    assert [path.exists() for path in flipped] == [True] * len(flipped)

    if seed == 1:
        assert audit(Store(store.root), repair=True).repaired == len(found.findings)
        assert not audit(Store(store.root)).findings
    fresh = Store(store.root)
    result, _ = build(fresh, tasks)
    assert result.ok
    assert broken <= set(result.labels(Status.RAN))
    for path in (project / "dist").rglob("*"):
        if path.is_file():
            path.unlink()
    install_all(fresh, project, tasks, result)
    assert snapshot(project) == expected
    fresh.close()
    left = {one.fault for one in audit(Store(store.root)).findings}
    # Logs and input trees that nothing needed again may still be flipped; no result may be wrong.
    assert left <= {"corrupt-blob"}


def test_a_whole_store_is_right(store: Store) -> None:
    build(store, [write_task("a", {"x": "1"}), join_task("b", "b", "a")])
    store.close()
    result = audit(store)
    assert result.findings == ()
    assert (result.traces, result.actions, result.leftovers, result.blobs) == (2, 2, 0, len(blobs(store)))
    assert result.size == sum(path.stat().st_size for path in blobs(store))


def test_every_kind_of_fault_is_named_and_repaired(store: Store) -> None:
    result, _ = build(store, [write_task("a", {"x": "1"}), write_task("b", {"y": "2"}), write_task("c", {"z": "3"})])
    actions = {label: outcome.action for label, outcome in result.outcomes.items()}
    trees = {label: outcome.tree for label, outcome in result.outcomes.items()}
    store.close()
    assert trees["a"] is not None and trees["b"] is not None
    flip(store.cas.blob_path(trees["a"].files[0].digest), random.Random(1))
    store.cas.remove(trees["b"].digest)
    store.traces.path(actions["c"] or "").write_bytes(b"{}")
    store.action_path(actions["c"] or "").write_bytes(b"{")
    (store.cas.root / "ab" / "stray").parent.mkdir(exist_ok=True)
    (store.cas.root / "ab" / "stray").write_bytes(b"")
    found = audit(Store(store.root))
    assert sorted((one.fault, one.label) for one in found.findings) == [
        ("corrupt-blob", ""),
        ("damaged-action", ""),
        ("damaged-trace", ""),
        ("incomplete-trace", "a"),
        ("incomplete-trace", "b"),
        ("stray-file", ""),
    ]
    details = {(one.fault, one.label): one.detail for one in found.findings}
    assert details["incomplete-trace", "a"] == "x of its output is missing or corrupt"
    assert details["incomplete-trace", "b"] == "its output tree is missing or corrupt"
    assert audit(Store(store.root), repair=True).repaired == 6
    assert audit(Store(store.root)).findings == ()
    again, _ = build(
        Store(store.root), [write_task("a", {"x": "1"}), write_task("b", {"y": "2"}), write_task("c", {"z": "3"})]
    )
    assert again.labels(Status.RAN) == ["a", "b", "c"]


def test_an_empty_store_is_right(store: Store) -> None:
    result = audit(store)
    assert (result.findings, result.blobs, result.traces) == ((), 0, 0)


def test_links_and_directories_among_blobs_are_removed_and_nothing_behind_them(store: Store, tmp_path: Path) -> None:
    build(store, [write_task("a", {"x": "1"})])
    outside = tmp_path / "outside"
    (outside / ("c" * 62)).mkdir(parents=True)
    (outside / "file").write_text("precious")
    (outside / ("d" * 62)).write_text("precious")
    before = picture(outside)
    root = store.cas.root
    (root / "zz").mkdir()
    (root / "zz" / "stray").write_text("x")
    (root / "ff").symlink_to(outside)
    (root / "link").symlink_to(outside / "file")
    (root / "directory" / "inner").mkdir(parents=True)
    (root / "ee").mkdir()
    (root / "ee" / ("e" * 62)).mkdir()
    (root / "ee" / ("e" * 61 + "f")).symlink_to(outside / "file")
    wrong = {"zz/stray", "ff", "link", "directory", f"ee/{'e' * 62}", f"ee/{'e' * 61}f"}
    found = audit(store, repair=True)
    assert {one.name.removeprefix("blobs/") for one in found.findings} == wrong
    assert all(one.fault == "stray-file" for one in found.findings)
    assert {one.detail for one in found.findings if one.name == "blobs/ff"} == {
        "it is a symbolic link, and blobs are files"
    }
    assert not audit(store).findings
    assert picture(outside) == before


def test_one_repair_that_fails_leaves_no_other_undone(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    build(store, [write_task("a", {"x": "1"})])
    for name in ("aa", "bb", "cc"):
        (store.cas.root / f"stray-{name}").write_text("x")

    class Stubborn(fs.FileSystem):
        def unlink(self, path: fs.StrPath) -> None:
            if str(path).endswith("stray-aa"):
                raise OSError(errno.EIO, "bad")
            super().unlink(path)

    monkeypatch.setattr(fs, "current", Stubborn())
    with pytest.raises(StoreError, match="cannot repair the cache"):
        audit(store, repair=True)
    assert [one.name for one in audit(store).findings] == ["blobs/stray-aa"]
