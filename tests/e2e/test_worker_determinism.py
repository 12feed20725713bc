"""A compiler that was forked from a process with TVM loaded gives the bytes of one that was started alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmbuild.engine.store import Store
from llmbuild.executors import local
from llmbuild.executors.local import LocalExecutor
from llmbuild.executors.processes import Forked, Worker
from tests.helpers.checkpoints import cached_checkpoint
from tests.helpers.cli import make_project, read_events


@pytest.mark.full
def test_a_forked_compiler_gives_the_same_bytes_as_one_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = make_project(tmp_path, checkpoint=cached_checkpoint("llama"))
    monkeypatch.setenv("TVM_BIND_THREADS", "0")
    # One lower: its worker is started alone, here and in the check that follows it.
    result = project.run("build", "--check", "lower", "--events", "events")
    assert result.code == 0, result.text
    events = read_events(project.root / "events")
    (checked,) = (event for event in events if event["type"] == "checked")
    assert (checked["label"].split("[")[0], checked["files"], checked["differences"]) == ("lower", 3, [])

    store = Store(project.store)
    executor = LocalExecutor(store)
    used: list[type[Worker]] = []
    start = local.LocalExecutor._start

    def note(*arguments: object) -> object:
        worker, streams = start(*arguments)  # type: ignore[arg-type]
        used.append(type(worker))
        return worker, streams

    monkeypatch.setattr(LocalExecutor, "_start", note)
    trace = store.traces.get(checked["action"])
    assert trace is not None
    try:
        # Two that wait are worth a server.
        executor.expect("lower", 2)
        assert executor.rerun(checked["action"]) == trace.output
    finally:
        executor.terminate()
        store.close()
    assert used == [Forked]
