"""Digests of outside files, remembered by their stat."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from llmbuild.canonical import digest_bytes
from llmbuild.engine.statcache import Anew, StatCache
from llmbuild.engine.verified import stamp_of
from llmbuild.errors import InputError


def old_file(path: Path, data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that looks hashed long after it was written (its ctime cannot be set, so the clock is)."""
    path.write_bytes(data)
    monkeypatch.setattr("llmbuild.engine.statcache.time.time_ns", lambda: time.monotonic_ns() + 10**19)


def test_an_unchanged_file_is_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    old_file(file, b"one", monkeypatch)
    cache = StatCache(tmp_path / "stat.json")
    assert cache.digest(file) == digest_bytes(b"one")
    cache.save()
    hashed: list[Path] = []
    monkeypatch.setattr("llmbuild.engine.statcache.digest_file", lambda path: hashed.append(path) or "new")
    assert cache.digest(file) == digest_bytes(b"one")
    assert StatCache(tmp_path / "stat.json").digest(file) == digest_bytes(b"one")
    assert hashed == []
    file.write_bytes(b"two")
    assert StatCache(tmp_path / "stat.json").digest(file) == "new"


def test_a_file_changed_just_now_is_not_remembered(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"one")
    cache = StatCache(tmp_path / "stat.json")
    assert cache.digest(file) == digest_bytes(b"one")
    stat = file.stat()
    file.write_bytes(b"two")
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert cache.digest(file) == digest_bytes(b"two")
    cache.save()
    assert not (tmp_path / "stat.json").exists()


def test_two_processes_keep_each_others_entries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old_file(tmp_path / "a", b"a", monkeypatch)
    old_file(tmp_path / "b", b"b", monkeypatch)
    first, second = StatCache(tmp_path / "stat.json"), StatCache(tmp_path / "stat.json")
    first.digest(tmp_path / "a")
    second.digest(tmp_path / "b")
    first.save()
    second.save()
    monkeypatch.setattr("llmbuild.engine.statcache.digest_file", lambda path: "hashed")
    third = StatCache(tmp_path / "stat.json")
    assert third.digest(tmp_path / "a") == digest_bytes(b"a")
    assert third.digest(tmp_path / "b") == digest_bytes(b"b")


def test_what_is_distrusted_is_hashed_again_and_no_earlier_belief_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    old_file(file, b"one", monkeypatch)
    hashed: list[Path] = []
    monkeypatch.setattr("llmbuild.engine.statcache.digest_file", lambda path: hashed.append(path) or "a" * 64)
    build, worker = StatCache(tmp_path / "stat.json"), StatCache(tmp_path / "stat.json")
    build.digest(file)
    worker.distrust(file)
    worker.save()
    build.save()
    # The process that had hashed it before reads what the worker wrote, as others do.
    assert build.digest(file) == "a" * 64
    assert StatCache(tmp_path / "stat.json").digest(file) == "a" * 64
    assert len(hashed) == 3
    build.save()
    assert StatCache(tmp_path / "stat.json").digest(file) == "a" * 64
    assert len(hashed) == 3


def test_a_damaged_cache_is_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    old_file(file, b"one", monkeypatch)
    path = tmp_path / "stat.json"
    cache = StatCache(path)
    cache.digest(file)
    cache.save()
    data = path.read_bytes()
    for text in (b"", b"[]", b'{"a": [1]}', b'{"a": 3}', *(data[:n] for n in range(0, len(data), 7))):
        path.write_bytes(text)
        assert StatCache(path).digest(file) == digest_bytes(b"one")


def test_a_name_that_is_no_text_costs_only_its_own_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for file in (tmp_path / os.fsdecode(b"w\xff"), tmp_path / "ok"):
        old_file(file, b"one", monkeypatch)
    cache = StatCache(tmp_path / "stat.json")
    assert {cache.digest(file) for file in tmp_path.iterdir()} == {digest_bytes(b"one")}
    cache.save()
    assert set(json.loads((tmp_path / "stat.json").read_bytes())) == {str(tmp_path / "ok")}
    monkeypatch.setattr("llmbuild.engine.statcache.digest_file", lambda path: "hashed")
    assert StatCache(tmp_path / "stat.json").digest(tmp_path / "ok") == digest_bytes(b"one")


def test_a_row_of_another_form_is_not_believed_and_costs_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        old_file(tmp_path / name, name.encode(), monkeypatch)
    cache = StatCache(tmp_path / "stat.json")
    for name in ("a", "b"):
        cache.digest(tmp_path / name)
    cache.save()
    rows = json.loads((tmp_path / "stat.json").read_bytes())
    good = rows[str(tmp_path / "a")]
    monkeypatch.setattr("llmbuild.engine.statcache.digest_file", lambda path: "hashed")
    for bad in (
        None,
        7,
        "x" * 5,
        good[:4],
        [*good, 1],
        [*good[:4], "../x"],
        [*good[:4], None],
        [good[:4], good[4]],
        {},
    ):
        (tmp_path / "stat.json").write_text(json.dumps({**rows, str(tmp_path / "a"): bad}))
        cache = StatCache(tmp_path / "stat.json")
        assert (cache.digest(tmp_path / "a"), cache.digest(tmp_path / "b")) == ("hashed", digest_bytes(b"b"))


def test_a_missing_file_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read"):
        StatCache(tmp_path / "stat.json").digest(tmp_path / "missing")


def test_a_cache_that_cannot_be_written_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    old_file(file, b"one", monkeypatch)
    cache = StatCache(file / "stat.json")
    assert cache.digest(file) == digest_bytes(b"one")
    cache.save()


def test_anew_hashes_a_file_whose_stat_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    old_file(file, b"one", monkeypatch)
    cache = StatCache(tmp_path / "stat.json")
    # A change through a mapping may leave inode, size and times: the memory is right by all that a stat can say.
    remembered = digest_bytes(b"before")
    stamp = [*stamp_of(file.stat()), remembered]
    (tmp_path / "stat.json").write_text(json.dumps({str(file): stamp}))
    assert StatCache(tmp_path / "stat.json").digest(file) == remembered
    anew = Anew(cache)
    assert anew.digest(file) == digest_bytes(b"one")
    hashed: list[Path] = []
    monkeypatch.setattr("llmbuild.engine.statcache.digest_file", lambda path: hashed.append(path) or "new")
    assert anew.digest(file) == digest_bytes(b"one")
    assert hashed == []
    cache.save()
    assert StatCache(tmp_path / "stat.json").digest(file) == digest_bytes(b"one")


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"a": 7}', '{"a": [1, 2, 3, 4, "../x"]}', "[]", '{"a": [null, 2, 3, 4, 5]}']
)
def test_a_memory_that_does_not_hold_counts_for_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "stat.json").write_text(text)
    (tmp_path / "file").write_bytes(b"one")
    assert StatCache(tmp_path / "stat.json").digest(tmp_path / "file") == digest_bytes(b"one")
