"""The scheduler: a static graph of tasks, bound to actions as their inputs become known, run at most `jobs` at a time.

A task whose action has a trace with all its output present is not run (constructive traces); since a task's action
depends on its inputs' digests only, a task that ran and gave the same bytes as before stops the cascade.  One thread
per running task waits for its lock and its worker; everything else, events included, happens in the calling thread.
"""

from __future__ import annotations

import contextlib
import heapq
import queue
import signal
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from types import FrameType
from typing import TypeAlias

from llmbuild.canonical import Digest
from llmbuild.engine import events
from llmbuild.engine.bind import Bound, bind
from llmbuild.engine.cas import MissingBlobError
from llmbuild.engine.executor import Executor, TaskFailure
from llmbuild.engine.locks import Owner
from llmbuild.engine.lookup import Cached, cached
from llmbuild.engine.predict import Estimate, remaining_path
from llmbuild.engine.store import ActionRecord, Store
from llmbuild.engine.task import AllFiles, Files, JsonFields, Task
from llmbuild.engine.trace import Trace
from llmbuild.engine.tree import Tree
from llmbuild.errors import ExitCode, Interrupted, LlmbuildError, UsageError

_LOCK_POLL_S = 0.05
_BACKTRACKS = 3
"""How often a task is tried again after one of its inputs vanished from the store under it."""

_LOOK_AHEAD = 64
"""How many tasks that do not fit into the memory are passed over in search of one that does."""


class Status(Enum):
    """How a task of a build ended."""

    RAN = "ran"
    CACHED = "cached"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Outcome:
    """A task's end.  `trace` and `tree` are there exactly when it ran or was cached."""

    status: Status
    action: Digest | None = None
    trace: Trace | None = None
    tree: Tree | None = None
    failure: TaskFailure | None = None


@dataclass(frozen=True, slots=True)
class BuildResult:
    """All outcomes by label, in plan order."""

    outcomes: Mapping[str, Outcome]

    def labels(self, status: Status) -> list[str]:
        return [label for label, outcome in self.outcomes.items() if outcome.status is status]

    @property
    def ok(self) -> bool:
        return all(outcome.status in (Status.RAN, Status.CACHED) for outcome in self.outcomes.values())

    @property
    def exit_code(self) -> ExitCode:
        """OK, or the exit code of the first failed task in plan order."""
        for outcome in self.outcomes.values():
            if outcome.failure is not None:
                return outcome.failure.to_error().exit_code
        return ExitCode.OK


@dataclass(slots=True)
class _Node:
    task: Task
    order: int
    waiting_for: set[str]
    must_run: bool
    bound: Bound | None = None
    digest: Digest = ""
    backtracks: int = 0
    active: bool = False
    peak: int | None = None
    """The predicted peak of its memory in bytes, once asked for."""


@dataclass(frozen=True, slots=True)
class _Done:
    """A thread's last message: the result, whether it came from another process, or the failure."""

    digest: Digest
    found: Cached | None = None
    from_process: bool = False
    failure: TaskFailure | None = None
    crash: BaseException | None = None


@dataclass(frozen=True, slots=True)
class _Stop:
    """A signal or `cancel` asks to stop; a second one comes from an impatient user."""


_Message: TypeAlias = "_Done | _Stop | events.Event"
EventCallback = Callable[[events.Event], None]


@dataclass(slots=True)
class _Build:
    """The changing state of one `run`."""

    nodes: dict[str, _Node]
    dependents: dict[str, list[str]]
    ready: list[tuple[int, str]] = field(default_factory=list)
    pending: list[tuple[float, int, str]] = field(default_factory=list)
    waiting: Counter[str] = field(default_factory=Counter)
    """How many tasks of each kind are pending."""
    running: dict[Digest, list[str]] = field(default_factory=dict)
    memory: dict[Digest, int] = field(default_factory=dict)
    """The predicted peak of each running action."""
    finished: dict[Digest, Cached] = field(default_factory=dict)
    ran: set[Digest] = field(default_factory=set)
    ran_before: set[str] = field(default_factory=set)
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    trees: dict[str, Tree] = field(default_factory=dict)
    threads: list[threading.Thread] = field(default_factory=list)
    stopped: bool = False
    interrupted: bool = False


class Scheduler:
    """Runs builds on one store.

    `force` names labels that run even when their result is there.  `project` identifies the project in traces and in
    the history.  `predict` estimates a task, given the bytes of its inputs or None: with it the tasks on the longest
    remaining path go first, and a task whose memory does not fit into `memory` (bytes) beside the running ones waits;
    alone, every task may run.  `priority` gives labels another urgency (larger first).  `emit` is called in the calling
    thread only, and so is `predict`, which a build that has nothing to run never calls.
    """

    def __init__(
        self,
        store: Store,
        executor: Executor,
        *,
        jobs: int = 1,
        keep_going: bool = False,
        force: Collection[str] = (),
        project: str = "",
        priority: Mapping[str, float] | None = None,
        predict: Callable[[Task, int | None], Estimate] | None = None,
        memory: int | None = None,
        emit: EventCallback = lambda _event: None,
    ) -> None:
        self._store = store
        self._executor = executor
        self._jobs = max(1, jobs)
        self._keep_going = keep_going
        self._force = frozenset(force)
        self._project = project
        self._priority = priority
        self._predict = predict
        self._memory = memory
        self._emit = emit
        self._messages: queue.SimpleQueue[_Message] = queue.SimpleQueue()
        self._cancelled = threading.Event()
        self._stop_asked = False

    def cancel(self) -> None:
        """End the build as Ctrl-C does; may be called from any thread and from a signal handler."""
        self._stop_asked = True
        self._messages.put(_Stop())

    def run(self, tasks: Sequence[Task]) -> BuildResult:
        """Bring all tasks up to date.

        Task failures are in the result.  Raises Interrupted after a signal or `cancel`, when all children have ended and
        the store is consistent; UsageError when the tasks are not a graph; StoreError when the store fails.
        """
        started = time.monotonic()
        build = self._start(tasks)
        self._emit(
            events.PlanMade(time=time.time(), tasks=tuple(build.nodes), jobs=self._jobs, needs=_positions(build.nodes))
        )
        self._store.cas.on_corrupt = self._report_corrupt
        try:
            with self._signals():
                self._loop(build)
        except BaseException:
            self._end_children(build)
            with contextlib.suppress(LlmbuildError):
                self._remember(build)
            raise
        finally:
            self._summarize(build, time.monotonic() - started)
        self._remember(build)
        if build.interrupted:
            raise Interrupted("the build was interrupted", fix="run it again: it goes on where it stopped")
        return BuildResult({label: build.outcomes[label] for label in build.nodes})

    # The graph.

    def _start(self, tasks: Sequence[Task]) -> _Build:
        nodes: dict[str, _Node] = {}
        dependents: dict[str, list[str]] = defaultdict(list)
        for order, task in enumerate(tasks):
            if task.label in nodes:
                raise UsageError(f"two tasks have the label {task.label}")
            nodes[task.label] = _Node(
                task, order, {ref.task for ref in task.inputs.values()}, must_run=task.label in self._force
            )
        for label, node in nodes.items():
            for upstream in node.waiting_for:
                if upstream not in nodes:
                    raise UsageError(f"{label} needs {upstream}, which is not in the plan")
                dependents[upstream].append(label)
        build = _Build(nodes, dependents)
        for label, node in nodes.items():
            if not node.waiting_for:
                self._make_ready(build, label)
        return build

    def _make_ready(self, build: _Build, label: str) -> None:
        node = build.nodes[label]
        if not node.active:
            node.active = True
            heapq.heappush(build.ready, (build.nodes[label].order, label))

    def _queue(self, build: _Build, label: str) -> None:
        if self._priority is None:
            tasks = [node.task for node in build.nodes.values()]
            predict = self._predict
            self._priority = (
                {} if predict is None else remaining_path(tasks, {t.label: predict(t, None).wall_s for t in tasks})
            )
        node = build.nodes[label]
        build.waiting[node.task.kind] += 1
        heapq.heappush(build.pending, (-self._priority.get(label, 0.0), node.order, label))

    # The loop.

    def _loop(self, build: _Build) -> None:
        while True:
            while build.ready and not build.stopped and not self._stop_asked:
                self._bind_and_look_up(build, heapq.heappop(build.ready)[1])
            while len(build.running) < self._jobs and not build.stopped and (label := self._next(build)) is not None:
                self._launch(build, label)
            if build.ready and not build.stopped and not self._stop_asked:
                continue
            if not build.running:
                break
            self._handle(build, self._messages.get())
        self._drain(build)
        for thread in build.threads:
            thread.join()
        if not build.stopped and len(build.outcomes) < len(build.nodes):
            stuck = ", ".join(label for label in build.nodes if label not in build.outcomes)
            raise UsageError(f"these tasks need each other in a circle: {stuck}")
        for label in build.nodes:
            if label not in build.outcomes:
                self._skip(build, label, "")

    def _drain(self, build: _Build) -> None:
        while True:
            try:
                message = self._messages.get_nowait()
            except queue.Empty:
                return
            self._handle(build, message)

    def _handle(self, build: _Build, message: _Message) -> None:
        match message:
            case _Done():
                self._finish(build, message)
            case _Stop():
                build.stopped = build.interrupted = True
                self._cancelled.set()
                # Ending children may take seconds; it must not keep this loop from seeing their last messages.
                threading.Thread(target=self._executor.terminate, daemon=True).start()
            case _:
                self._emit(message)

    def _bind_and_look_up(self, build: _Build, label: str) -> None:
        node = build.nodes[label]
        try:
            node.bound = bind(node.task, build.trees, self._store.cas.get_bytes)
        except MissingBlobError as error:
            self._backtrack(build, label, TaskFailure.of(error, error.digest))
            return
        except LlmbuildError as error:
            self._fail(build, label, TaskFailure.of(error))
            return
        node.digest = digest = node.bound.action.digest
        if self._joins(build, label):
            return
        found = None if node.must_run else cached(self._store, digest)
        if found is not None:
            build.finished[digest] = found
            self._succeed(build, label, found, "store")
            return
        self._emit(events.Queued(time=time.time(), label=label, action=digest))
        self._queue(build, label)

    def _joins(self, build: _Build, label: str) -> bool:
        """Whether an equal task of this build has the result, or will have it soon."""
        node = build.nodes[label]
        if node.digest in build.finished and (not node.must_run or node.digest in build.ran):
            self._succeed(build, label, build.finished[node.digest], "build")
            return True
        if node.digest in build.running:
            build.running[node.digest].append(label)
            return True
        return False

    def _next(self, build: _Build) -> str | None:
        """Take the most urgent pending task whose memory fits beside the running ones; None when there is none."""
        passed: list[tuple[float, int, str]] = []
        found: str | None = None
        while build.pending and found is None and len(passed) < _LOOK_AHEAD:
            item = heapq.heappop(build.pending)
            label = item[2]
            node = build.nodes[label]
            if self._predict is not None and self._memory is not None:
                if node.peak is None:
                    node.peak = self._predict(node.task, _input_size(build, node.task)).peak_rss
                known = node.digest in build.finished or node.digest in build.running
                if build.running and not known and sum(build.memory.values()) + node.peak > self._memory:
                    passed.append(item)
                    continue
            found = label
        for item in passed:
            heapq.heappush(build.pending, item)
        if found is not None:
            build.waiting[build.nodes[found].task.kind] -= 1
        return found

    def _launch(self, build: _Build, label: str) -> None:
        node = build.nodes[label]
        digest = node.digest
        if self._joins(build, label):
            return
        assert node.bound is not None
        kind = node.task.kind
        self._executor.expect(kind, build.waiting[kind] + 1)
        for blob in node.bound.blobs:
            self._store.cas.put_bytes(blob)
        self._store.put_action(ActionRecord(node.bound.action, label, self._project))
        build.running[digest] = [label]
        build.memory[digest] = node.peak or 0
        thread = threading.Thread(
            target=self._run_action, args=(label, digest, node.must_run), name=f"llmbuild {label}", daemon=True
        )
        build.threads.append(thread)
        thread.start()

    # What a thread does.

    def _run_action(self, label: str, digest: Digest, must_run: bool) -> None:
        try:
            self._messages.put(self._locked_run(label, digest, must_run))
        except LlmbuildError as error:
            self._messages.put(_Done(digest, failure=TaskFailure.of(error)))
        except BaseException as error:
            self._messages.put(_Done(digest, crash=error))

    def _locked_run(self, label: str, digest: Digest, must_run: bool) -> _Done:
        lock = self._store.lock(digest)
        waited = False

        def poll(owner: Owner | None) -> None:
            nonlocal waited
            if not waited:
                waited = True
                self._messages.put(
                    events.WaitingForLock(
                        time=time.time(),
                        label=label,
                        action=digest,
                        owner_pid=owner.pid if owner else None,
                        owner_label=owner.label if owner else None,
                    )
                )
            if self._cancelled.wait(_LOCK_POLL_S):
                raise Interrupted("the build was interrupted")

        lock.acquire(label, poll=poll)
        try:
            # Another process may have run it between our look at the traces and our lock.
            if (waited or not must_run) and (found := cached(self._store, digest)) is not None:
                return _Done(digest, found, from_process=True)
            if self._cancelled.is_set():
                raise Interrupted("the build was interrupted")
            self._messages.put(events.Started(time=time.time(), label=label, action=digest))

            def progress(done: int, total: int, unit: str = "") -> None:
                self._messages.put(
                    events.TaskProgress(time=time.time(), label=label, done=done, total=total, unit=unit)
                )

            failure = self._executor.run(digest, progress, lock.fd)
            if failure is not None:
                return _Done(digest, failure=failure)
            found = cached(self._store, digest)
            if found is None:
                return _Done(digest, failure=TaskFailure("the output vanished from the cache right after it was built"))
            return _Done(digest, found)
        finally:
            lock.release()

    # Ends.

    def _finish(self, build: _Build, done: _Done) -> None:
        labels = build.running.pop(done.digest)
        build.memory.pop(done.digest, None)
        if done.crash is not None:
            raise done.crash
        if done.found is not None:
            build.finished[done.digest] = done.found
            build.ran.add(done.digest)
            for position, label in enumerate(labels):
                source = "build" if position else "process" if done.from_process else "here"
                self._succeed(build, label, done.found, source)
            return
        assert done.failure is not None
        if done.failure.missing_blob is not None and not build.stopped:
            for label in labels:
                self._backtrack(build, label, done.failure)
        elif not build.interrupted:
            for label in labels:
                self._fail(build, label, done.failure)

    def _succeed(self, build: _Build, label: str, found: Cached, source: str) -> None:
        node, trace = build.nodes[label], found.trace
        node.must_run = node.active = False
        build.trees[label] = found.tree
        status = Status.RAN if source == "here" else Status.CACHED
        if label in build.ran_before:
            status = Status.RAN
        build.outcomes[label] = Outcome(status, node.digest, trace, found.tree)
        if source == "here":
            self._emit(
                events.Finished(
                    time=time.time(),
                    label=label,
                    action=node.digest,
                    output=trace.output,
                    output_size=trace.output_size,
                    wall_s=trace.wall_s,
                    cpu_s=trace.cpu_s,
                    peak_rss=trace.peak_rss,
                )
            )
        else:
            self._emit(
                events.CachedTask(
                    time=time.time(),
                    label=label,
                    action=node.digest,
                    output=trace.output,
                    source=source,
                    output_size=trace.output_size,
                    wall_s=trace.wall_s,
                )
            )
        for dependent in build.dependents.get(label, ()):
            waiting = build.nodes[dependent].waiting_for
            if label in waiting:
                waiting.discard(label)
                if not waiting and dependent not in build.outcomes:
                    self._make_ready(build, dependent)

    def _backtrack(self, build: _Build, label: str, failure: TaskFailure) -> None:
        """An input vanished or was corrupt: run again whatever makes it, then this task."""
        node = build.nodes[label]
        node.active = False
        node.backtracks += 1
        producers = {
            ref.task
            for ref in node.task.inputs.values()
            if failure.missing_blob in {build.trees[ref.task].digest, *(f.digest for f in build.trees[ref.task].files)}
        }
        if node.backtracks > _BACKTRACKS:
            self._fail(build, label, failure)
            return
        if not producers:
            # A narrowed tree or a projected value: binding writes it again.
            self._make_ready(build, label)
            return
        node.waiting_for |= producers
        for producer in producers:
            upstream = build.nodes[producer]
            if upstream.digest in build.finished:
                del build.finished[upstream.digest]
                build.ran.discard(upstream.digest)
            earlier = build.outcomes.pop(producer, None)
            if earlier is not None and earlier.status is Status.RAN:
                build.ran_before.add(producer)
            upstream.must_run = True
            self._make_ready(build, producer)

    def _fail(self, build: _Build, label: str, failure: TaskFailure) -> None:
        node = build.nodes[label]
        node.active = False
        build.outcomes[label] = Outcome(Status.FAILED, node.digest or None, failure=failure)
        self._emit(events.Failed(time=time.time(), label=label, action=node.digest or None, failure=failure))
        build.stopped = build.stopped or not self._keep_going
        doomed = list(build.dependents.get(label, ()))
        while doomed:
            dependent = doomed.pop()
            if dependent not in build.outcomes:
                self._skip(build, dependent, label)
                doomed.extend(build.dependents.get(dependent, ()))

    def _skip(self, build: _Build, label: str, because: str) -> None:
        build.outcomes[label] = Outcome(Status.SKIPPED)
        self._emit(events.Skipped(time=time.time(), label=label, because=because))

    def _end_children(self, build: _Build) -> None:
        self._cancelled.set()
        self._executor.terminate()
        for thread in build.threads:
            thread.join()
        self._store.clean_scratch()

    def _remember(self, build: _Build) -> None:
        ran = [outcome.trace for outcome in build.outcomes.values() if outcome.trace and outcome.status is Status.RAN]
        if ran:
            self._store.index.add(ran)
        done = {label: outcome.action for label, outcome in build.outcomes.items() if outcome.trace and outcome.action}
        if self._project and done:
            self._store.history(self._project).update(done)

    def _summarize(self, build: _Build, wall: float) -> None:
        if build.interrupted:
            self._store.clean_scratch()
        count = dict.fromkeys(Status, 0)
        for outcome in build.outcomes.values():
            count[outcome.status] += 1
        self._emit(
            events.Summary(
                time=time.time(),
                ran=count[Status.RAN],
                cached=count[Status.CACHED],
                failed=count[Status.FAILED],
                skipped=count[Status.SKIPPED],
                wall_s=round(wall, 6),
                interrupted=build.interrupted,
                failures=tuple(label for label, one in build.outcomes.items() if one.status is Status.FAILED),
            )
        )

    def _report_corrupt(self, digest: Digest, path: Path) -> None:
        self._messages.put(events.CorruptBlob(time=time.time(), digest=digest, path=str(path)))

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """While a build runs in the main thread, SIGINT and SIGTERM end it in order."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def handler(_number: int, _frame: FrameType | None) -> None:
            if self._stop_asked:
                raise Interrupted("the build was interrupted twice", fix="run it again: it goes on where it stopped")
            self.cancel()

        before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, old in before.items():
                signal.signal(number, old)


def _positions(nodes: Mapping[str, _Node]) -> tuple[tuple[int, ...], ...]:
    """For each task the positions of those it reads from."""
    return tuple(tuple(sorted({nodes[ref.task].order for ref in node.task.inputs.values()})) for node in nodes.values())


def _input_size(build: _Build, task: Task) -> int:
    """The bytes of the files that a task whose inputs are all built will see."""
    size = 0
    for ref in task.inputs.values():
        tree = build.trees[ref.task]
        match ref.select:
            case AllFiles():
                size += sum(entry.size for entry in tree.files)
            case Files(patterns):
                size += sum(entry.size for entry in tree.select(patterns).files)
            case JsonFields():
                # A handful of fields weighs nothing beside what else a task reads.
                pass
    return size
