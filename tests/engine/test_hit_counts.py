"""Counts of hits and misses: one line a build, summed up now and then."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmbuild.engine import fs
from llmbuild.engine.hit_counts import Use, Uses
from llmbuild.engine.store import Store
from tests.helpers.engine_build import build, join_task, write_task


def test_a_build_writes_one_line(store: Store) -> None:
    tasks = [write_task("a", {"x": "1"}), write_task("b", {"x": "2"}), join_task("j", "j", "a", "b")]
    build(store, tasks)
    build(store, tasks)
    build(store, [*tasks, write_task("bad", {}, fail="no")], keep_going=True)
    assert len((store.root / "uses").read_text().splitlines()) == 3
    assert store.uses.total() == {"combine": Use(2, 1), "write": Use(4, 2)}


class Appends(fs.FileSystem):
    """Counts what is appended."""

    count = 0

    def append(self, path: fs.StrPath, data: bytes) -> None:
        self.count += 1
        super().append(path, data)


def test_a_null_build_writes_nothing_else(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = [write_task(str(n), {"x": str(n)}) for n in range(20)]
    build(store, tasks)
    store.close()
    counting = Appends()
    monkeypatch.setattr(fs, "current", counting)
    build(Store(store.root), tasks)
    assert counting.count == 1


def test_many_lines_are_summed_up_and_torn_ones_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "uses"
    uses = Uses(path)
    assert uses.total() == {}
    path.write_bytes(b'{"lower":[1,2]}\n{"lower":[1\n[]\n{"x":3}\n' + b'{"fetch":[1,0]}\n' * 20_000)
    uses.add({"lower": Use(1, 0)})
    assert path.read_bytes() == b'{"fetch":[20000,0],"lower":[2,2]}\n'
    uses.add({})
    assert uses.total() == {"fetch": Use(20000, 0), "lower": Use(2, 2)}


def test_a_store_that_cannot_be_written_keeps_no_count(tmp_path: Path) -> None:
    Uses(tmp_path / "missing" / "uses").add({"lower": Use(1, 0)})
