"""Workers forked from a process that has done the slow imports are like workers that were started alone."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmbuild.engine import events
from llmbuild.engine.outcome import Status
from llmbuild.engine.scheduler import Scheduler
from llmbuild.engine.store import Store
from llmbuild.engine.task import Task
from llmbuild.errors import ExitCode, Interrupted
from llmbuild.executors.local import LocalExecutor
from tests.executors.test_local import eventually_no_process
from tests.helpers.engine_build import Recorder, build, text_of, write_task

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forking workers is for Linux")


def tell(name: str, way: str | None = None) -> Task:
    return Task("tell", f"tell[{name}]", 1, {"name": name}, {}, {}, hints={} if way is None else {"way": way})


@pytest.fixture
def executor(store: Store) -> Iterator[LocalExecutor]:
    opened = LocalExecutor(store)
    yield opened
    opened.terminate()
    eventually_no_process(store)


def imports(tmp_path: Path) -> int:
    path = tmp_path / "runs.imports"
    return len(path.read_text().splitlines()) if path.exists() else 0


def test_one_import_serves_all_tasks(store: Store, executor: LocalExecutor, tmp_path: Path) -> None:
    result, recorder = build(store, [tell(str(n)) for n in range(5)], executor=executor, jobs=2)
    assert result.labels(Status.RAN) == [f"tell[{n}]" for n in range(5)]
    assert imports(tmp_path) == 1
    for n in range(5):
        trace = result.outcomes[f"tell[{n}]"].trace
        assert trace is not None
        assert trace.notes == ("a note of x", "y" * 4000)
        assert trace.log is not None
        assert store.cas.get_bytes(trace.log) == b"telling\n"
        assert 5 << 20 < trace.peak_rss < 200 << 20
    assert next(event.notes for event in recorder.events if isinstance(event, events.Finished))[0] == "a note of x"
    progress = [event for event in recorder.events if isinstance(event, events.TaskProgress)]
    assert {event.unit for event in progress} == {"facts"}
    assert list((store.root / "logs").iterdir()) == []


def test_a_forked_worker_is_like_one_alone(store: Store, executor: LocalExecutor, tmp_path: Path) -> None:
    alone, _ = build(store, [tell("a")], executor=executor)
    assert imports(tmp_path) == 0
    forked, _ = build(store, [tell("b"), tell("c")], executor=executor)
    assert imports(tmp_path) == 1
    one = json.loads(text_of(store, alone, "tell[a]", "facts.json"))
    other = json.loads(text_of(store, forked, "tell[b]", "facts.json"))
    assert (one.pop("preloaded"), other.pop("preloaded")) == (False, True)
    assert one == other
    assert one["leads its group"]
    assert (one["threads"], one["log"], one["stdin"]) == (2, "logs", "pipe")
    assert text_of(store, forked, "tell[b]", "facts.json") == text_of(store, forked, "tell[c]", "facts.json")


def test_one_task_starts_no_server(store: Store, executor: LocalExecutor, tmp_path: Path) -> None:
    build(store, [tell("a"), write_task("b", {}), write_task("c", {})], executor=executor)
    assert imports(tmp_path) == 0


@pytest.mark.parametrize(
    ("way", "what", "in_log"),
    [
        ("9", "killed (SIGKILL)", "telling"),
        ("11", "crashed (SIGSEGV)", "Segmentation fault"),
        ("exit", "ended with exit code 3", ""),
        ("raise", "internal error: ValueError: a bug", "Traceback"),
    ],
)
def test_a_fork_that_ends_badly_ends_alone(
    store: Store, executor: LocalExecutor, way: str, what: str, in_log: str
) -> None:
    tasks = [tell("bad", way), tell("good"), tell("other")]
    result, _ = build(store, tasks, executor=executor, keep_going=True)
    failure = result.outcomes["tell[bad]"].failure
    assert failure is not None
    assert what in failure.what
    assert in_log in failure.log_tail
    assert result.labels(Status.RAN) == ["tell[good]", "tell[other]"]
    assert [path for path in (store.root / "scratch").iterdir() if path.is_dir()] == [store.scratch()]


def test_modules_that_start_threads_are_not_forked(
    store: Store, executor: LocalExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMBUILD_TEST_THREAD", "1")
    result, _ = build(store, [tell("a"), tell("b")], executor=executor)
    assert result.ok
    assert not json.loads(text_of(store, result, "tell[a]", "facts.json"))["preloaded"]
    (server,) = executor._servers.values()
    assert server.refused == "importing tests.helpers.slow_module started 1 threads"


def test_tasks_of_a_killed_server_run_alone(store: Store, executor: LocalExecutor) -> None:
    recorder = Recorder()

    def emit(event: events.Event) -> None:
        recorder(event)
        if isinstance(event, events.TaskProgress) and not killed:
            killed.append(event.label)
            (server,) = executor._servers.values()
            os.kill(server._process.pid, signal.SIGKILL)

    killed: list[str] = []
    result = Scheduler(store, executor, project="p", emit=emit).run([tell(str(n)) for n in range(4)])
    assert killed
    assert result.labels(Status.RAN) == [f"tell[{n}]" for n in range(4)]
    facts = [json.loads(text_of(store, result, f"tell[{n}]", "facts.json")) for n in range(4)]
    assert [one["preloaded"] for one in facts][1:] == [False] * 3


def test_terminate_ends_forks(store: Store, executor: LocalExecutor) -> None:
    def emit(event: events.Event) -> None:
        if isinstance(event, events.TaskProgress):
            threading.Timer(0.05, scheduler.cancel).start()

    scheduler = Scheduler(store, executor, jobs=2, project="p", emit=emit)
    started = time.monotonic()
    with pytest.raises(Interrupted):
        scheduler.run([tell(str(n), "sleep") for n in range(3)])
    assert time.monotonic() - started < 5
    eventually_no_process(store)


def test_terminate_does_not_wait_for_the_imports(
    store: Store, executor: LocalExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduler = Scheduler(store, executor, jobs=2, project="p")
    threading.Timer(0.05, scheduler.cancel).start()
    with pytest.raises(Interrupted):
        scheduler.run([tell(str(n), "sleep") for n in range(3)])
    eventually_no_process(store)


def test_a_module_that_cannot_be_imported_is_the_tasks_own_error(
    store: Store, executor: LocalExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LLMBUILD_TEST_RUNS")
    result, _ = build(store, [tell("a"), tell("b")], executor=executor)
    # The server says no; the tasks themselves do not need the module.
    assert result.exit_code == ExitCode.OK
    (server,) = executor._servers.values()
    assert (server.refused or "").startswith("KeyError")
