"""The store's directory: layout, version, scratch, action records."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from llmbuild.canonical import digest_bytes
from llmbuild.engine import files, fs
from llmbuild.engine.action import Action, JsonInput, TreeInput
from llmbuild.engine.scheduler import Scheduler
from llmbuild.engine.store import ActionRecord, Store, default_root
from llmbuild.errors import StoreError
from llmbuild.executors.inline import InlineExecutor
from tests.helpers.engine_fixtures import ROOT

ACTION = Action(
    "write",
    1,
    {"files": {"a": "é"}, "n": [1, 2.5, None, True]},
    {"x": TreeInput(digest_bytes(b"x")), "y": JsonInput(digest_bytes(b"y"))},
    {"tool": "1"},
    {"path": "/somewhere"},
)


def test_default_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/u")
    assert default_root({"LLMBUILD_CACHE": "/c", "XDG_CACHE_HOME": "/x"}) == Path("/c")
    assert default_root({"LLMBUILD_CACHE": "~/c"}) == Path("/home/u/c")
    assert default_root({"XDG_CACHE_HOME": "/x"}) == Path("/x/llmbuild")
    assert default_root({"XDG_CACHE_HOME": "relative"}) == Path("/home/u/.cache/llmbuild")
    assert default_root({}) == Path("/home/u/.cache/llmbuild")


def test_opening_and_asking_writes_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    assert store.traces.get(digest_bytes(b"x")) is None
    assert not store.cas.has(digest_bytes(b"x"))
    assert store.history("p").last() == {}
    store.close()
    assert list(tmp_path.iterdir()) == []


def test_another_layout_is_refused(store: Store) -> None:
    store.cas.put_bytes(b"x")
    Store(store.root)
    for text in ("2", "x"):
        (store.root / "version").write_text(text)
        with pytest.raises(StoreError, match="another version"):
            Store(store.root)


def test_a_version_that_a_power_loss_emptied_is_written_again(store: Store) -> None:
    store.cas.put_bytes(b"x")
    store.close()
    (store.root / "version").write_text("")
    again = Store(store.root)
    again.cas.put_bytes(b"y")
    assert (store.root / "version").read_text() == "1\n"
    again.close()


def test_a_root_that_is_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError):
        Store(tmp_path / "file").cas.put_bytes(b"x")


def test_action_records_round_trip(store: Store) -> None:
    record = ActionRecord(ACTION, "write[a]", "p")
    digest = store.put_action(record)
    assert digest == ACTION.digest
    assert store.get_action(digest) == record
    with pytest.raises(StoreError, match="no action"):
        store.get_action(digest_bytes(b"x"))


def test_a_damaged_action_record_is_refused(store: Store) -> None:
    digest = store.put_action(ActionRecord(ACTION, "write[a]", "p"))
    path = store.action_path(digest)
    data = path.read_bytes()
    for damaged in (b"", data[:-5], data.replace(b'"n":[1', b'"n":[2'), b"[]", b'{"key": 3}'):
        path.write_bytes(damaged)
        with pytest.raises(StoreError, match="damaged"):
            Store(store.root).get_action(digest)
    store.put_action(ActionRecord(ACTION, "write[a]", "p"))
    assert store.get_action(digest).action == ACTION
    assert Store(store.root).get_action(digest).action == ACTION


def test_hints_are_not_part_of_the_key() -> None:
    other = Action(ACTION.kind, ACTION.version, ACTION.params, ACTION.inputs, ACTION.tools, {"path": "/else"})
    assert other.digest == ACTION.digest


def test_scratch_goes_with_its_owner(store: Store) -> None:
    code = """
import os, sys
from pathlib import Path
from llmbuild.engine.store import Store
store = Store(Path(sys.argv[1]))
(store.new_scratch_dir("work") / "file").write_text("x")
print(store.scratch(), flush=True)
if sys.argv[2] == "die":
    os._exit(9)
"""
    for way, left in (("exit", False), ("die", True)):
        output = subprocess.run(
            [sys.executable, "-c", code, str(store.root), way], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert Path(output.stdout.strip()).exists() is left, output.stderr
    mine = store.new_scratch_dir("mine")
    # The first scratch of a process cleans up; a scratch whose owner lives is left alone.
    assert [path.name for path in (store.root / "scratch").iterdir() if path.is_dir()] == [mine.parent.name]
    other = Store(store.root)
    assert other.clean_scratch() == 0
    assert mine.exists()
    store.close()
    assert list((store.root / "scratch").iterdir()) == []
    # A closed store can be used again.
    store.cas.put_bytes(b"again")


def leave_scratch(store: Store, name: str, *, lock: bool) -> Path:
    """What a killed process leaves."""
    path = store.root / "scratch" / name
    (path / "work-1" / "out").mkdir(parents=True)
    (path / "work-1" / "out" / "half").write_bytes(b"x")
    if lock:
        path.with_suffix(".lock").touch()
    return path


def test_a_build_with_nothing_to_do_removes_what_a_killed_one_left(store: Store) -> None:
    left = [leave_scratch(store, "aaaa", lock=True), leave_scratch(store, "bbbb", lock=False)]
    assert [path.name for path in store.dead_scratch()] == ["aaaa.lock", "bbbb.lock"]
    Scheduler(store, InlineExecutor(store)).run([])
    assert [path.exists() for path in left] == [False, False]
    assert list((store.root / "scratch").iterdir()) == []


def test_scratch_that_cannot_be_removed_now_is_removed_later(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = store.new_scratch_dir("mine").parent
    dead = leave_scratch(store, "aaaa", lock=True)

    def in_use(path: fs.StrPath, root: fs.StrPath) -> None:
        raise OSError(errno.ENOTEMPTY, "Directory not empty", str(path))

    with monkeypatch.context() as patched:
        # A child of the dead process makes files as fast as they are removed.
        patched.setattr(files, "remove_tree", in_use)
        assert store.clean_scratch() == 0
        store.close()
    assert dead.exists()
    assert mine.exists()
    # Neither lock is held by this process any more, and neither is lost.
    assert Store(store.root).clean_scratch() == 2
    assert list((store.root / "scratch").iterdir()) == []
