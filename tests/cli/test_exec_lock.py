"""`llmbuild exec` beside a build: it waits for whoever runs the action."""

from __future__ import annotations

import threading
from argparse import Namespace
from pathlib import Path

import pytest

from llmbuild.cli.exec_ import run
from llmbuild.engine.store import Store
from llmbuild.errors import StoreError, UsageError
from tests.helpers import engine_kinds
from tests.helpers.engine_build import build, join_task, write_task
from tests.helpers.engine_fixtures import ROOT


def test_exec_waits_for_the_owner_of_the_action(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LLMBUILD_TASK_MODULES", engine_kinds.MODULE)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    store = Store(tmp_path / "store")
    result, _ = build(store, [write_task("a", {"x": "1"})])
    action = result.outcomes["a"].action
    assert action is not None
    lock = store.lock(action)
    assert lock.try_acquire("a")
    timer = threading.Timer(0.3, lock.release)
    timer.start()
    assert (
        run(Namespace(cache_dir=tmp_path / "store", digest=action[:16], trust=True, out=tmp_path / "out", dump=None))
        == 0
    )
    timer.join()
    error = capsys.readouterr().err
    assert "wait   a: process " in error
    assert error.index("wait") < error.index("done   a")
    assert (tmp_path / "out" / "x").read_text() == "1"
    assert store.lock(action).try_acquire()
    store.close()


def test_a_result_that_was_removed_meanwhile_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMBUILD_TASK_MODULES", engine_kinds.MODULE)
    store = Store(tmp_path / "store")
    result, _ = build(store, [write_task("a", {"x": "1"})])
    action = result.outcomes["a"].action
    assert action is not None
    monkeypatch.setattr("llmbuild.executors.local.LocalExecutor.run", lambda *args: None)
    store.traces.remove(action)
    with pytest.raises(StoreError, match="the result of the action is gone again"):
        run(Namespace(cache_dir=tmp_path / "store", digest=action[:16], trust=True, out=None, dump=None))
    store.close()


def test_intermediate_results_are_written_where_they_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LLMBUILD_TASK_MODULES", engine_kinds.MODULE)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(tmp_path)
    store = Store(tmp_path / "store")
    result, _ = build(store, [write_task("a", {"x": "1"}), join_task("b", "text", "a")])
    action, other = (result.outcomes[label].action for label in "ab")
    assert action is not None and other is not None
    asked = {"cache_dir": tmp_path / "store", "trust": True, "out": None, "dump": Path("deep/dump")}
    assert run(Namespace(digest=action[:16], **asked)) == 0
    assert (tmp_path / "deep/dump/seen.txt").read_text() == "['x']"
    # They are no output, and the action is the same one.
    assert capsys.readouterr().out.splitlines()[-1].endswith("  x")
    assert store.traces.get(action) is not None
    with pytest.raises(UsageError, match="b has nothing to dump") as caught:
        run(Namespace(digest=other[:16], **asked))
    assert caught.value.fix == "name the action of a lower task, or leave --dump out"
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="make the directory"):
        run(Namespace(digest=action[:16], **asked | {"dump": tmp_path / "file"}))
    store.close()
