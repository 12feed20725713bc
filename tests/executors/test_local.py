"""One process a task: crashes, interrupts, and several builds on one store."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from llmbuild.canonical import Digest, digest_bytes
from llmbuild.engine import events
from llmbuild.engine.executor import TaskFailure
from llmbuild.engine.kind import Progress
from llmbuild.engine.outcome import Status
from llmbuild.engine.store import Store
from llmbuild.engine.task import Task
from llmbuild.errors import ExitCode
from llmbuild.executors.local import LocalExecutor
from tests.helpers.engine_build import build, join_task, text_of, write_task
from tests.helpers.engine_fixtures import ROOT


def misbehave(way: str) -> Task:
    return Task("misbehave", f"misbehave[{way}]", 1, {"way": way}, {}, {})


def test_workers_build_a_graph(store: Store) -> None:
    tasks = [write_task("a", {"x": "1"}), join_task("b", "b", "a"), join_task("c", "c", "a", "b")]
    result, recorder = build(store, tasks, executor=LocalExecutor(store), jobs=2)
    assert result.labels(Status.RAN) == ["a", "b", "c"]
    assert text_of(store, result, "c") == "c|1|b|1"
    progress = [event for event in recorder.events if isinstance(event, events.TaskProgress)]
    assert [(event.label, event.done, event.total, event.unit) for event in progress] == [("a", 1, 1, "files")]
    trace = result.outcomes["a"].trace
    assert trace is not None
    assert trace.log is not None
    assert store.cas.get_bytes(trace.log) == b"writing ['x']\n"
    assert 5 << 20 < trace.peak_rss < 200 << 20
    assert list((store.root / "logs").iterdir()) == []


def test_a_blob_that_a_worker_finds_damaged_is_told_and_made_again(store: Store) -> None:
    class Damage(LocalExecutor):
        done = False

        def run(self, action: Digest, progress: Progress) -> TaskFailure | None:
            if store.get_action(action).label == "b" and not self.done:
                self.done = True
                path = store.cas.blob_path(digest_bytes(b"1"))
                path.unlink()
                path.write_bytes(b"2")
            return super().run(action, progress)

    told: list[Digest] = []
    tasks = [write_task("a", {"x": "1"}), join_task("b", "b", "a")]
    with store.cas.listening(lambda digest, _path: told.append(digest)):
        result, recorder = build(store, tasks, executor=Damage(store))
    assert text_of(store, result, "b") == "b|1"
    assert recorder.labels(events.Finished) == ["a", "a", "b"]
    found = [event.digest for event in recorder.events if isinstance(event, events.CorruptBlob)]
    assert found == told == [digest_bytes(b"1")]


def test_a_failure_of_a_task_comes_back_with_its_exit_code_and_log(store: Store) -> None:
    result, _ = build(store, [write_task("a", {"x": "1"}, fail="cut off")], executor=LocalExecutor(store))
    failure = result.outcomes["a"].failure
    assert failure is not None
    assert (failure.what, failure.fix, failure.exit_code) == ("cut off", "do not ask for it", ExitCode.INPUT)
    assert failure.log is not None
    assert Path(failure.log).read_text() == failure.log_tail + "\n" == "writing ['x']\n"


@pytest.mark.parametrize(
    ("way", "what", "exit_code", "in_log"),
    [
        ("9", "killed (SIGKILL)", ExitCode.FAILED, "about to misbehave"),
        ("11", "crashed (SIGSEGV)", ExitCode.FAILED, "Segmentation fault"),
        ("6", "crashed (SIGABRT)", ExitCode.FAILED, "Aborted"),
        ("exit", "ended with exit code 3", ExitCode.INTERNAL, ""),
        ("raise", "internal error: ValueError: a bug", ExitCode.INTERNAL, "Traceback"),
    ],
)
def test_the_ways_a_worker_can_end(store: Store, way: str, what: str, exit_code: ExitCode, in_log: str) -> None:
    result, _ = build(store, [misbehave(way), write_task("a", {})], executor=LocalExecutor(store), keep_going=True)
    failure = result.outcomes[f"misbehave[{way}]"].failure
    assert failure is not None
    assert what in failure.what
    assert failure.exit_code == exit_code
    assert in_log in failure.log_tail
    action = result.outcomes[f"misbehave[{way}]"].action
    assert action is not None
    if failure.exit_code == ExitCode.FAILED:
        assert f"llmbuild exec {action[:16]}" in (failure.fix or "")
        assert failure.signal == int(way)
    assert result.outcomes["a"].status is Status.RAN
    assert list(store.scratch().iterdir()) == []
    # What the dead worker held is gone with it.
    assert [path for path in (store.root / "scratch").iterdir() if path.is_dir()] == [store.scratch()]


BUILD = """
import json, sys
from pathlib import Path
from llmbuild.engine import events
from llmbuild.engine.scheduler import Scheduler
from llmbuild.engine.store import Store
from llmbuild.engine.task import Task
from llmbuild.errors import LlmbuildError
from llmbuild.executors.local import LocalExecutor
from tests.helpers.engine_build import join_task, write_task

def emit(event):
    print(json.dumps(event.to_json()), flush=True)

store = Store(Path(sys.argv[1]))
tasks = [write_task("a", {"x": "1"}, sleep=0.1)]
tasks += [join_task(f"b{n}", str(n), "a", sleep=0.1) for n in range(4)]
tasks += [join_task("c", "c", *(f"b{n}" for n in range(4)))]
if sys.argv[2] == "sleep":
    tasks += [Task("misbehave", "sleeper", 1, {"way": "sleep"}, {}, {})]
try:
    result = Scheduler(store, LocalExecutor(store), jobs=2, project="p", emit=emit).run(tasks)
    code = int(result.exit_code)
except LlmbuildError as error:
    print(json.dumps({"type": "error", "message": str(error)}), flush=True)
    code = int(error.exit_code)
store.close()
sys.exit(code)
"""


def start(store: Store, mode: str = "") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", BUILD, str(store.root), mode], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, list[dict[str, object]]]:
    output, _ = process.communicate(timeout=60)
    return process.returncode, [json.loads(line) for line in output.splitlines()]


def wait_for(process: subprocess.Popen[str], kind: str, label: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        event = json.loads(line)
        if (event["type"], event.get("label")) == (kind, label):
            return
    raise AssertionError(f"{label} never {kind}")


def processes_with(text: str) -> list[int]:
    """The processes whose command line has the text (a store's path, so that only this test's are found)."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                words = (entry / "cmdline").read_bytes()
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if text.encode() in words and state != "Z":
                found.append(int(entry.name))
    return found


def eventually_no_process(store: Store) -> None:
    deadline = time.monotonic() + 5
    while left := processes_with(str(store.root)):
        assert time.monotonic() < deadline, left
        time.sleep(0.02)


def test_four_processes_run_each_action_once(store: Store, tmp_path: Path) -> None:
    processes = [start(store) for _ in range(4)]
    results = [finish(process) for process in processes]
    assert [code for code, _ in results] == [0] * 4
    runs = Counter(line.rsplit(" ", 1)[0] for line in (tmp_path / "runs").read_text().splitlines())
    assert len(runs) == 6
    assert set(runs.values()) == {1}
    waits = [event for _, found in results for event in found if event["type"] == "waiting-for-lock"]
    pids = {process.pid for process in processes}
    assert waits
    assert all(event["owner-pid"] in {*pids, None} for event in waits)
    summaries = [found[-1] for _, found in results]
    assert sum(int(str(one["ran"])) for one in summaries) == 6
    assert sum(int(str(one["cached"])) for one in summaries) == 18


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_build_ends_its_children_and_leaves_nothing_half_written(store: Store, number: int) -> None:
    process = start(store, "sleep")
    wait_for(process, "started", "sleeper")
    os.kill(process.pid, number)
    started = time.monotonic()
    code, found = finish(process)
    assert time.monotonic() - started < 5
    assert code == ExitCode.INTERRUPTED
    assert found[-1]["type"] == "error"
    eventually_no_process(store)
    assert list((store.root / "scratch").iterdir()) == []
    assert not list(store.root.rglob("*.llmbuild-tmp*"))
    done = len(list(store.traces.all()))
    code, found = finish(start(store))
    assert code == 0
    assert (found[-1]["ran"], found[-1]["cached"]) == (6 - done, done)


def test_a_killed_build_frees_its_locks_and_the_next_goes_on(store: Store, tmp_path: Path) -> None:
    process = start(store, "sleep")
    wait_for(process, "started", "sleeper")
    other = start(store)
    process.kill()
    process.communicate()
    code, _ = finish(other)
    assert code == 0
    eventually_no_process(store)
    assert finish(start(store))[1][-1]["ran"] == 0
    result, _ = build(store, [write_task("z", {"z": "1"})])
    assert result.ok
    # The orphaned worker died with its parent, and its scratch was cleaned by the next that came.
    store.clean_scratch()
    assert [path.name for path in (store.root / "scratch").iterdir() if path.is_dir()] == [store.scratch().name]


def test_waiting_builds_go_on_when_the_owner_is_killed(store: Store, tmp_path: Path) -> None:
    first = start(store)
    wait_for(first, "started", "a")
    others = [start(store) for _ in range(2)]
    time.sleep(0.05)
    first.kill()
    first.communicate()
    assert [finish(process)[0] for process in others] == [0, 0]
    eventually_no_process(store)


def test_a_terminated_executor_starts_nothing(store: Store) -> None:
    executor = LocalExecutor(store)
    executor.terminate()
    result, _ = build(store, [write_task("a", {})], executor=executor)
    assert result.exit_code == ExitCode.INTERRUPTED


def test_a_killed_resumable_task_goes_on_where_it_was(store: Store, tmp_path: Path) -> None:
    (tmp_path / "die").mkdir()
    for step in ("1", "3"):
        (tmp_path / "die" / step).touch()
    task = Task("count", "count", 1, {"steps": 5}, {}, {}, hints={"die": str(tmp_path / "die")})
    for left in (["0", "1"], ["0", "1", "2", "3"]):
        result, _ = build(store, [task], executor=LocalExecutor(store))
        failure = result.outcomes["count"].failure
        assert failure is not None
        assert "killed (SIGKILL)" in failure.what
        (resume,) = (store.root / "resume").iterdir()
        assert resume.name == result.outcomes["count"].action
        assert sorted(path.name for path in resume.iterdir()) == left
    result, _ = build(store, [task], executor=LocalExecutor(store))
    assert text_of(store, result, "count", "steps") == "5"
    assert list((store.root / "resume").iterdir()) == []
    steps = [line.split(" {")[0] for line in (tmp_path / "runs").read_text().splitlines()]
    assert steps == [f"step {n}" for n in range(5)]


def test_a_check_starts_from_nothing(store: Store, tmp_path: Path) -> None:
    task = Task("count", "count", 1, {"steps": 3}, {}, {}, hints={"alone": True})
    result, _ = build(store, [task], executor=LocalExecutor(store))
    outcome = result.outcomes["count"]
    assert outcome.action is not None
    assert outcome.trace is not None
    assert LocalExecutor(store).rerun(outcome.action) == outcome.trace.output
    assert len((tmp_path / "runs").read_text().splitlines()) == 6
    assert list((store.root / "resume").iterdir()) == []
    assert list((store.root / "logs").iterdir()) == []


def test_a_worker_that_may_have_no_more_memory_fails_with_a_log(store: Store) -> None:
    """A real want of memory: the address space of the worker is bounded, and what it asks for beyond that is refused."""
    result, _ = build(store, [misbehave("memory"), write_task("a", {})], executor=LocalExecutor(store), keep_going=True)
    failure = result.outcomes["misbehave[memory]"].failure
    assert failure is not None
    assert failure.what == "the task ran out of memory"
    assert "--jobs 1" in (failure.fix or "")
    assert failure.exit_code == ExitCode.FAILED
    assert "MemoryError" in failure.log_tail
    assert "about to misbehave" in failure.log_tail
    assert result.outcomes["a"].status is Status.RAN


@pytest.mark.parametrize(
    ("before", "after", "why", "fix"),
    [
        (3, 4, "the kernel ran out of memory and chose it", "a smaller --memory"),
        (3, 3, "another process sent the signal", "llmbuild exec"),
        (None, None, "most often that is want of memory", "a smaller --memory"),
    ],
)
def test_the_kernels_count_tells_who_killed_a_worker(
    store: Store, monkeypatch: pytest.MonkeyPatch, before: int | None, after: int | None, why: str, fix: str
) -> None:
    counts = [before, after]
    monkeypatch.setattr("llmbuild.executors.local.oom_kills", lambda: counts.pop(0))
    result, _ = build(store, [misbehave("9")], executor=LocalExecutor(store))
    failure = result.outcomes["misbehave[9]"].failure
    assert failure is not None
    assert why in (failure.why or "")
    assert fix in (failure.fix or "")
    assert "MiB of memory" in failure.what
