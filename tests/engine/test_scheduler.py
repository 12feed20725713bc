"""The scheduler: what runs, what does not, and what a failure does."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from llmbuild.canonical import Digest
from llmbuild.engine import events
from llmbuild.engine.bind import Bound
from llmbuild.engine.executor import TaskFailure
from llmbuild.engine.kind import Progress
from llmbuild.engine.lookup import Cached, cached
from llmbuild.engine.outcome import Status
from llmbuild.engine.predict import Estimate
from llmbuild.engine.scheduler import Scheduler
from llmbuild.engine.store import Store
from llmbuild.engine.task import Files, InputRef, JsonFields, Task
from llmbuild.errors import ExitCode, Interrupted, UsageError
from llmbuild.executors.inline import InlineExecutor
from llmbuild.report.events import Explained
from tests.helpers.engine_build import Recorder, build, join_task, text_of, write_task


def chain(temperature: str = "0.7", width: str = "1", **hints: object) -> list[Task]:
    """fetch -> config -> lower -> link, where lower reads one field of the configuration."""
    config = f'{{"temperature": {temperature}, "width": {width}}}'
    return [
        write_task("config", {"c.json": config, "other": temperature}),
        join_task("lower", "lower", InputRef("config", JsonFields("c.json", ("width",)))),
        join_task("link", "link", "lower"),
        join_task("all", "all", "config", "link"),
    ]


def test_a_first_build_runs_all_and_a_second_runs_nothing(store: Store, tmp_path: Path) -> None:
    result, recorder = build(store, chain())
    assert result.labels(Status.RAN) == ["config", "lower", "link", "all"]
    assert result.ok
    assert result.exit_code == ExitCode.OK
    assert text_of(store, result, "link") == 'link|lower|{"width":1}'
    assert recorder.labels(events.Finished) == ["config", "lower", "link", "all"]
    again, recorder = build(Store(store.root), chain())
    assert again.labels(Status.CACHED) == ["config", "lower", "link", "all"]
    assert {one.tree for one in again.outcomes.values()} == {one.tree for one in result.outcomes.values()}
    assert [type(event) for event in recorder.events] == [events.PlanMade, *[events.CachedTask] * 4, events.Summary]
    assert len((tmp_path / "runs").read_text().splitlines()) == 4


def test_the_reason_is_asked_and_told_when_it_is_decided(store: Store, tmp_path: Path) -> None:
    asked: list[tuple[str, int]] = []
    runs = tmp_path / "runs"

    def explain(task: Task, bound: Bound) -> Explained:
        assert store.traces.get(bound.action.digest) is None
        asked.append((task.label, len(runs.read_text().splitlines()) if runs.exists() else 0))
        return Explained(time=0.0, label=task.label, reasons=())

    _, recorder = build(store, [*chain(), write_task("equal", chain()[0].params["files"])], explain=explain)  # type: ignore[arg-type]
    # One that turns out to be equal to another is asked for, and never starts.
    assert asked == [("config", 0), ("equal", 0), ("lower", 1), ("link", 2), ("all", 3)]
    told = [event for event in recorder.events if isinstance(event, (events.Queued, Explained, events.Started))]
    assert [(type(event), event.label) for event in told] == [
        *[(of, label) for label in ("config", "equal") for of in (events.Queued, Explained)],
        (events.Started, "config"),
        *[(of, label) for label in ("lower", "link", "all") for of in (events.Queued, Explained, events.Started)],
    ]
    asked.clear()
    build(store, chain(), explain=explain)
    assert asked == []


def test_what_earlier_runs_took_is_told_once_and_only_where_something_runs(store: Store) -> None:
    took = {"config": 1.5, "lower": 20.0}

    def predict(task: Task, _size: int | None) -> Estimate:
        return Estimate(took.get(task.label, 3.0), 0, 0, runs=task.label in took)

    _, recorder = build(store, chain(), predict=predict)
    (predicted,) = [event for event in recorder.events if isinstance(event, events.Predicted)]
    assert predicted.seconds == (1.5, 20.0, None, None)
    assert recorder.events.index(predicted) < next(
        number for number, event in enumerate(recorder.events) if isinstance(event, events.Started)
    )
    _, recorder = build(store, chain(), predict=predict)
    assert [event for event in recorder.events if isinstance(event, events.Predicted)] == []


def test_a_field_that_is_not_read_stops_the_cascade(store: Store) -> None:
    build(store, chain())
    result, _ = build(store, chain(temperature="1.0"))
    assert result.labels(Status.RAN) == ["config", "all"]
    result, _ = build(store, chain(width="2"))
    assert result.labels(Status.RAN) == ["config", "lower", "link", "all"]
    # Going back to old values finds the old traces.
    result, _ = build(store, chain())
    assert result.labels(Status.RAN) == []
    assert store.history("test").last() == {label: one.action for label, one in result.outcomes.items()}


def test_an_output_that_comes_out_the_same_stops_the_cascade(store: Store) -> None:
    def tasks(extra: str) -> list[Task]:
        return [
            write_task("a", {"x": "same", "y": extra}),
            join_task("b", "b", InputRef("a", Files(("x",)))),
            join_task("c", "c", "b"),
        ]

    build(store, tasks("1"))
    assert build(store, tasks("2"))[0].labels(Status.RAN) == ["a"]


def test_equal_actions_of_one_build_run_once(store: Store, tmp_path: Path) -> None:
    tasks = [
        write_task("a", {"x": "same", "n": "1"}),
        write_task("b", {"x": "same", "n": "2"}),
        join_task("lower a", "l", InputRef("a", Files(("x",))), sleep=0.05),
        join_task("lower b", "l", InputRef("b", Files(("x",))), sleep=0.05),
    ]
    result, recorder = build(store, tasks, jobs=4)
    assert result.outcomes["lower a"].tree == result.outcomes["lower b"].tree
    assert sorted(line.split()[0] for line in (tmp_path / "runs").read_text().splitlines()) == [
        "combine",
        "write",
        "write",
    ]
    assert len(result.labels(Status.RAN)) == 3
    assert [event.source for event in recorder.events if isinstance(event, events.CachedTask)] == ["build"]


def test_forced_tasks_run_again_and_their_equals_once(store: Store, tmp_path: Path) -> None:
    tasks = [write_task("a", {"x": "1"}), write_task("b", {"x": "1"}), join_task("c", "c", "a")]
    build(store, tasks)
    result, _ = build(store, tasks, force=["a", "b"])
    assert len((tmp_path / "runs").read_text().splitlines()) == 3
    assert result.labels(Status.CACHED) == ["b", "c"]
    # The one that is not forced was found first; the forced one runs all the same.
    result, _ = build(store, tasks, force=["b"])
    assert result.labels(Status.RAN) == ["b"]


def test_a_failure_skips_what_depends_on_it_and_stops_the_rest(store: Store) -> None:
    tasks = [
        write_task("bad", {"x": "1"}, fail="the checkpoint is cut off"),
        join_task("after", "t", "bad"),
        join_task("last", "t", "after"),
        write_task("good", {"x": "2"}),
        join_task("after good", "t", "good"),
    ]
    result, recorder = build(store, tasks)
    assert result.labels(Status.FAILED) == ["bad"]
    assert result.labels(Status.SKIPPED) == ["after", "last", "good", "after good"]
    assert not result.ok
    assert result.exit_code == ExitCode.INPUT
    failure = result.outcomes["bad"].failure
    assert failure is not None
    assert str(failure.to_error()) == "the checkpoint is cut off\n  fix: do not ask for it"
    assert {e.label: e.because for e in recorder.events if isinstance(e, events.Skipped)} == {
        "after": "bad",
        "last": "bad",
        "good": "",
        "after good": "",
    }
    result, recorder = build(store, tasks, keep_going=True)
    assert result.labels(Status.FAILED) == ["bad"]
    assert result.labels(Status.SKIPPED) == ["after", "last"]
    assert result.labels(Status.RAN) == ["good", "after good"]
    summary = recorder.events[-1]
    assert isinstance(summary, events.Summary)
    assert (summary.ran, summary.cached, summary.failed, summary.skipped) == (2, 0, 1, 2)
    assert summary.failures == ("bad",)
    # A failed action leaves no trace: when its cause is gone it runs.
    repaired = [write_task("bad", {"x": "1"}), *tasks[1:]]
    result, _ = build(store, repaired)
    assert result.labels(Status.RAN) == ["bad", "after", "last"]


def test_an_unexpected_exception_is_an_internal_error(store: Store) -> None:
    result, _ = build(store, [Task("misbehave", "m", 1, {"way": "raise"}, {}, {})])
    assert result.exit_code == ExitCode.INTERNAL
    assert "ValueError: a bug" in str(result.outcomes["m"].failure)


def test_an_output_that_points_outside_is_refused(store: Store) -> None:
    result, _ = build(store, [Task("misbehave", "m", 1, {"way": "outside-link"}, {}, {})])
    assert "points outside" in str(result.outcomes["m"].failure)
    assert result.exit_code == ExitCode.INPUT


def test_an_unknown_kind_and_a_changed_kind_are_reported(store: Store) -> None:
    result, _ = build(store, [Task("wirte", "m", 1, {}, {}, {})])
    assert "did you mean 'write'" in str(result.outcomes["m"].failure)
    result, _ = build(store, [Task("write", "m", 2, {"files": {}}, {}, {})])
    assert "another version" in str(result.outcomes["m"].failure)
    result, _ = build(store, [Task("write", "m", 1, {"files": {}, "more": 1}, {}, {})])
    assert "another version" in str(result.outcomes["m"].failure)


def test_graphs_that_are_none_are_refused(store: Store) -> None:
    with pytest.raises(UsageError, match="two tasks"):
        build(store, [write_task("a", {}), write_task("a", {})])
    with pytest.raises(UsageError, match="not in the plan"):
        build(store, [join_task("a", "t", "b")])
    with pytest.raises(UsageError, match="circle"):
        build(store, [join_task("a", "t", "b"), join_task("b", "t", "a")])


@pytest.mark.parametrize("damage", ["delete", "flip"])
@pytest.mark.parametrize("which", ["file", "tree"])
@pytest.mark.parametrize("label", ["config", "lower", "link", "all"])
def test_a_lost_or_corrupt_blob_is_built_again(store: Store, damage: str, which: str, label: str) -> None:
    first, _ = build(store, chain())
    tree = first.outcomes[label].tree
    assert tree is not None
    path = store.cas.path(tree.files[0].digest if which == "file" else tree.digest)
    data = path.read_bytes()
    path.unlink()
    if damage == "flip":
        path.write_bytes(bytes([data[0] ^ 4]) + data[1:])
    result, recorder = build(Store(store.root), chain())
    assert result.labels(Status.RAN) == [label]
    assert [event for event in recorder.events if isinstance(event, events.Failed)] == []
    assert len([event for event in recorder.events if isinstance(event, events.CorruptBlob)]) == (damage == "flip")
    assert text_of(store, result, "all") == text_of(store, first, "all")


def test_all_blobs_lost_is_a_full_build(store: Store) -> None:
    first, _ = build(store, chain())
    for path in (store.root / "blobs").glob("??/*"):
        path.unlink()
    result, _ = build(store, chain())
    assert len(result.labels(Status.RAN)) == 4
    assert text_of(store, result, "all") == text_of(store, first, "all")


class Thief(InlineExecutor):
    """Removes blobs from the store while a build runs, as an eviction by another process does."""

    def __init__(self, store: Store, steal: dict[int, list[Digest]]) -> None:
        super().__init__(store)
        self.steal = steal
        self.runs = 0
        self.mine = store

    def run(self, action: Digest, progress: Progress) -> TaskFailure | None:
        for digest in self.steal.get(self.runs, ()):
            self.mine.cas.remove(digest)
        self.runs += 1
        return super().run(action, progress)


def test_an_input_that_vanishes_during_the_build_is_built_again(store: Store) -> None:
    tasks = [
        write_task("a", {"x": "1"}),
        join_task("b", "b", "a"),
        join_task("c", "c", InputRef("b", Files(("joined",)))),
        join_task("d", "d", "c"),
    ]
    first, _ = build(store, tasks)
    blob = {label: one.tree.files[0].digest for label, one in first.outcomes.items() if one.tree}
    for label in ("d", "c"):
        store.traces.remove(first.outcomes[label].action or "")
    # Before c runs, b's output is lost; before b runs again, a's is lost too.
    thief = Thief(store, {0: [blob["b"]], 1: [blob["a"]]})
    result, _ = build(store, tasks, executor=thief)
    assert result.ok
    assert sorted(result.labels(Status.RAN)) == ["a", "b", "c", "d"]
    assert text_of(store, result, "d") == text_of(store, first, "d")


def test_a_narrowed_tree_that_vanishes_is_written_again(store: Store) -> None:
    tasks = [write_task("a", {"x": "1", "y": "2"}), join_task("b", "b", InputRef("a", Files(("x",))))]
    first, _ = build(store, tasks)
    tree = first.outcomes["a"].tree
    assert tree is not None
    store.traces.remove(first.outcomes["b"].action or "")
    result, _ = build(store, tasks, executor=Thief(store, {0: [tree.select(["x"]).digest]}))
    assert result.labels(Status.RAN) == ["b"]


def test_an_input_that_vanishes_for_ever_is_an_error(store: Store) -> None:
    tasks = [write_task("a", {"x": "1"}), join_task("b", "b", "a")]
    first, _ = build(store, tasks)
    tree = first.outcomes["a"].tree
    assert tree is not None
    store.traces.remove(first.outcomes["b"].action or "")
    result, _ = build(store, tasks, executor=Thief(store, {n: [tree.files[0].digest] for n in range(0, 20, 2)}))
    assert result.labels(Status.FAILED) == ["b"]
    assert result.exit_code == ExitCode.STORE


def test_priorities_and_plan_order_decide_who_is_first(store: Store, tmp_path: Path) -> None:
    tasks = [write_task(name, {"x": name}) for name in "abcd"]
    _, recorder = build(store, tasks, priority={"c": 5.0, "d": 9.0})
    assert recorder.labels(events.Started) == ["d", "c", "a", "b"]


class Gate:
    """An executor that shows how many actions run at once."""

    def __init__(self, store: Store) -> None:
        self.inner = InlineExecutor(store)
        self.guard = threading.Lock()
        self.now = self.most = 0

    def run(self, action: Digest, progress: Progress) -> TaskFailure | None:
        with self.guard:
            self.now += 1
            self.most = max(self.most, self.now)
        threading.Event().wait(0.03)
        failure = self.inner.run(action, progress)
        with self.guard:
            self.now -= 1
        return failure

    def expect(self, kind: str, count: int) -> None:
        self.inner.expect(kind, count)

    def terminate(self) -> None:
        self.inner.terminate()


@pytest.mark.parametrize("jobs", [1, 3])
def test_at_most_jobs_tasks_run_at_once(store: Store, jobs: int) -> None:
    gate = Gate(store)
    build(store, [write_task(str(n), {"x": str(n)}) for n in range(7)], executor=gate, jobs=jobs)
    assert gate.most == jobs


def test_the_longest_remaining_path_goes_first(store: Store) -> None:
    tasks = [write_task("short", {"x": "1"}), write_task("long", {"x": "2"}), join_task("end", "end", "long")]
    asked: list[str] = []

    def predict(task: Task, input_size: int | None) -> Estimate:
        asked.append(task.label)
        return Estimate({"short": 3.0, "long": 2.0, "end": 2.0}[task.label], 0, 0, 1)

    _, recorder = build(store, tasks, predict=predict)
    assert recorder.labels(events.Started) == ["long", "short", "end"]
    asked.clear()
    build(store, tasks, predict=predict)
    assert asked == []


@pytest.mark.parametrize(("memory", "most"), [(100, 1), (200, 2), (399, 3), (None, 4)])
def test_tasks_wait_for_memory_but_one_may_always_run(store: Store, memory: int | None, most: int) -> None:
    gate = Gate(store)
    tasks = [write_task(str(n), {"x": str(n)}) for n in range(4)]
    tasks += [join_task("huge", "h", "0"), join_task("huge2", "h2", "0")]

    def predict(task: Task, input_size: int | None) -> Estimate:
        assert input_size in {None, 0, 1}
        return Estimate(1.0, 5000 if task.kind == "combine" else 100, 0, 1)

    result, _ = build(store, tasks, executor=gate, jobs=4, predict=predict, memory=memory)
    assert result.ok
    assert gate.most == most if memory is not None else gate.most >= 3


def test_what_fits_goes_before_what_must_wait(store: Store) -> None:
    tasks = [write_task("first", {"x": "1"}, sleep=0.1), write_task("big", {"x": "2"}), write_task("small", {"x": "3"})]
    sizes = {"first": 60, "big": 60, "small": 40}
    walls = {"first": 9.0, "big": 8.0, "small": 1.0}

    class Threads(InlineExecutor):
        def run(self, action: Digest, progress: Progress) -> TaskFailure | None:
            return InlineExecutor(store).run(action, progress)

    def predict(task: Task, input_size: int | None) -> Estimate:
        return Estimate(walls[task.label], sizes[task.label], 0, 1)

    _, recorder = build(store, tasks, executor=Threads(store), jobs=2, predict=predict, memory=100)
    held = [event for event in recorder.events if isinstance(event, events.WaitingForMemory)]
    assert [(event.label, event.needs, event.taken, event.budget) for event in held] == [("big", 60, 60, 100)]
    order = [type(event).__name__ for event in recorder.events if getattr(event, "label", "") == "big"]
    assert order[:3] == ["Queued", "WaitingForMemory", "Started"]
    assert set(recorder.labels(events.Started)[:2]) == {"first", "small"}
    assert recorder.labels(events.Started)[2] == "big"


def test_executors_are_told_how_many_tasks_of_a_kind_wait(store: Store) -> None:
    told: list[tuple[str, int]] = []

    class Listener(InlineExecutor):
        def expect(self, kind: str, count: int) -> None:
            told.append((kind, count))

    tasks = [write_task(name, {"x": name}) for name in "abc"] + [join_task("j", "j", "a")]
    build(store, tasks, executor=Listener(store))
    assert sorted(told) == [("combine", 1), ("write", 1), ("write", 2), ("write", 3)]


def test_events_are_emitted_in_the_calling_thread(store: Store) -> None:
    threads: set[int] = set()
    scheduler = Scheduler(
        store, InlineExecutor(store), jobs=3, emit=lambda _event: threads.add(threading.get_ident()), project="p"
    )
    scheduler.run(chain())
    assert threads == {threading.get_ident()}


def test_cancel_ends_the_build_and_the_next_goes_on(store: Store) -> None:
    tasks = [write_task("a", {"x": "1"}), *(join_task(f"b{n}", str(n), "a", sleep=0.05) for n in range(6))]
    recorder = Recorder()
    scheduler: Scheduler

    def emit(event: events.Event) -> None:
        recorder(event)
        if isinstance(event, events.Started) and event.label == "b1":
            scheduler.cancel()

    scheduler = Scheduler(store, InlineExecutor(store), emit=emit, project="test")
    with pytest.raises(Interrupted) as caught:
        scheduler.run(tasks)
    assert caught.value.exit_code == ExitCode.INTERRUPTED
    summary = recorder.events[-1]
    assert isinstance(summary, events.Summary)
    assert summary.interrupted
    result, _ = build(store, tasks)
    assert result.ok
    assert {"a", "b0"} <= set(result.labels(Status.CACHED))
    assert len(result.labels(Status.RAN)) >= 4


def test_an_error_of_the_callback_ends_the_build_in_order(store: Store) -> None:
    def emit(event: events.Event) -> None:
        if isinstance(event, events.Started):
            raise RuntimeError("the terminal is gone")

    with pytest.raises(RuntimeError, match="terminal"):
        Scheduler(store, InlineExecutor(store), emit=emit).run(chain())
    assert build(store, chain())[0].ok


def test_trace_of_a_run(store: Store) -> None:
    result, _ = build(store, chain())
    trace = result.outcomes["lower"].trace
    assert trace is not None
    assert (trace.kind, trace.label, trace.project) == ("combine", "lower", "test")
    assert trace.key["params"] == {"text": "lower"}
    assert trace.output_size == len(text_of(store, result, "lower"))
    assert trace.wall_s >= 0
    assert trace.peak_rss > 1 << 20
    run = store.index.last("test", "lower")
    assert run is not None
    assert run.action == trace.action


def test_an_action_runs_again_from_its_record(store: Store) -> None:
    result, _ = build(store, chain())
    digest = result.outcomes["link"].action
    assert digest is not None
    before = store.traces.get(digest)
    made = InlineExecutor(Store(store.root)).run(digest, lambda done, total, unit="": None)
    assert isinstance(made, Cached)
    assert made == cached(Store(store.root), digest)
    after = store.traces.get(digest)
    assert before is not None
    assert after is not None
    assert before.output == after.output
    assert before.finished < after.finished


def test_scratch_is_empty_after_builds(store: Store) -> None:
    tasks = [*chain(), write_task("bad", {"x": "left behind"}, fail="no")]
    build(store, tasks, keep_going=True)
    # One directory serves all tasks that run one after another, and goes with the process.
    (work,) = store.scratch().iterdir()
    assert sorted(path.relative_to(work).as_posix() for path in work.rglob("*")) == ["inputs", "out", "scratch"]
    scratch = store.scratch()
    store.close()
    assert not scratch.exists()


def test_a_directory_for_work_is_used_again_only_when_it_is_as_new(store: Store) -> None:
    with store.work_dir() as first:
        (first / "out" / "sub").mkdir()
        (first / "out" / "sub" / "file").write_text("x")
    with store.work_dir() as again, store.work_dir() as other:
        assert again == first
        assert other != first
        assert list((again / "out").iterdir()) == []
        (again / "extra").write_text("x")
        (other / "out").rmdir()
        (other / "out").symlink_to(store.root)
    assert not first.exists()
    assert not other.exists()
    assert store.root.is_dir()
    with pytest.raises(ZeroDivisionError), store.work_dir() as third:
        (third / "scratch" / "x").write_text("x")
        raise ZeroDivisionError
    with store.work_dir() as last:
        assert last == third
        assert list((last / "scratch").iterdir()) == []
