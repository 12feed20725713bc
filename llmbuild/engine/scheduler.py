"""The scheduler: a static graph of tasks, bound to actions as their inputs become known, run at most `jobs` at a time.

A task whose action has a trace with all its output present is not run (constructive traces); since a task's action
depends on its inputs' digests only, a task that ran and gave the same bytes as before stops the cascade.  One thread
per running task waits for its lock and its worker; everything else, events included, happens in the calling thread.
"""

from __future__ import annotations

import contextlib
import heapq
import queue
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from llmbuild.canonical import Digest
from llmbuild.engine import events
from llmbuild.engine.bind import Bound, bind
from llmbuild.engine.build_state import Build, Node
from llmbuild.engine.cas import MissingBlobError
from llmbuild.engine.executor import Executor, TaskFailure
from llmbuild.engine.interrupt import on_signals
from llmbuild.engine.lookup import Cached, cached
from llmbuild.engine.outcome import BuildResult, Outcome, Status
from llmbuild.engine.pending import Pending, Predict
from llmbuild.engine.predict import Estimate
from llmbuild.engine.runner import Done, Runner
from llmbuild.engine.store import ActionRecord, Store
from llmbuild.engine.task import Task
from llmbuild.engine.warning import warn
from llmbuild.errors import Interrupted, LlmbuildError, StoreError, UsageError

if TYPE_CHECKING:
    from llmbuild.engine.sharing import Sharing

_BACKTRACKS = 3
"""How often a task is tried again after one of its inputs vanished from the store under it."""


@dataclass(frozen=True, slots=True)
class _Stop:
    """A signal or `cancel` requests a stop; a second one comes from an impatient user."""


_Message: TypeAlias = "Done | _Stop | events.Event"
EventCallback = Callable[[events.Event], None]
Explain: TypeAlias = Callable[[Task, Bound], events.Event]
Reword: TypeAlias = Callable[[Task, TaskFailure], TaskFailure]


class Scheduler:
    """Runs builds on one store.

    `force` names labels that run even when their result is there.  `project` identifies the project in traces and in the
    history.  `predict` estimates a task, given the bytes of its inputs or None: with it the tasks on the longest remaining path
    go first, and a task whose memory does not fit into `memory` (bytes) beside the running ones waits; alone, every task may
    run.  `priority` gives labels another urgency (larger first).  A task whose result `sharing` has does not run, but for
    `force`, and the result of one that runs is given to it.  `explain` is called when it is decided that a task runs, and its
    result is reported when the task is queued.  `reword` puts the user's names into the failure of a task.  `emit` is
    called in the calling thread only, and so are `explain` and `predict`, which a build that has nothing to run never calls.
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
        predict: Predict | None = None,
        memory: int | None = None,
        sharing: Sharing | None = None,
        explain: Explain | None = None,
        reword: Reword = lambda _task, failure: failure,
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
        self._sharing = sharing
        self._explain = explain
        self._reword = reword
        self._emit = emit
        self._messages: queue.SimpleQueue[_Message] = queue.SimpleQueue()
        self._runner = Runner(store, executor, self._messages.put, sharing)
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
        build = Build.of(tasks, self._force)
        # What killed builds left goes now, also where nothing is to be done and so no scratch of ours is made.
        self._store.clean_scratch()
        self._emit(events.PlanMade(time=time.time(), tasks=tuple(build.nodes), jobs=self._jobs, needs=build.needs()))

        def corrupt(digest: Digest, path: Path) -> None:
            self._messages.put(events.CorruptBlob(time=time.time(), digest=digest, path=str(path)))

        pending = Pending(
            build,
            priority=self._priority,
            predict=self._predict,
            memory=self._memory,
            held=self._report_held,
            predicted=self._report_predicted,
        )
        try:
            with on_signals(self._signalled), self._store.cas.listening(corrupt):
                self._loop(build, pending)
        except BaseException:
            self._end_children()
            with contextlib.suppress(LlmbuildError):
                self._remember(build)
            raise
        finally:
            self._summarize(build, time.monotonic() - started)
        self._remember(build)
        if build.interrupted:
            raise Interrupted("the build was interrupted", fix="run it again: it goes on where it stopped")
        return BuildResult({label: build.outcomes[label] for label in build.nodes})

    # The loop.

    def _loop(self, build: Build, pending: Pending) -> None:
        while True:
            while build.ready and not build.stopped and not self._stop_asked:
                self._bind_and_look_up(build, pending, heapq.heappop(build.ready)[1])
            while len(build.running) < self._jobs and not build.stopped and (node := pending.take()) is not None:
                self._launch(build, node, pending.waiting[node.task.kind] + 1)
            if build.ready and not build.stopped and not self._stop_asked:
                continue
            if not build.running:
                break
            self._handle(build, self._messages.get())
        self._drain(build)
        self._runner.join()
        if self._sharing is not None:
            self._sharing.finish(lambda: not self._stop_asked)
            # A stop that was requested meanwhile takes effect.
            self._drain(build)
        if not build.stopped and len(build.outcomes) < len(build.nodes):
            stuck = ", ".join(label for label in build.nodes if label not in build.outcomes)
            raise UsageError(f"these tasks need each other in a circle: {stuck}")
        for label in build.nodes:
            if label not in build.outcomes:
                self._skip(build, label, "")

    def _drain(self, build: Build) -> None:
        while True:
            try:
                message = self._messages.get_nowait()
            except queue.Empty:
                return
            self._handle(build, message)

    def _handle(self, build: Build, message: _Message) -> None:
        match message:
            case Done():
                self._runner.ended()
                self._finish(build, message)
            case _Stop():
                build.stopped = build.interrupted = True
                self._runner.cancel()
                # Ending children may take seconds; it must not keep this loop from seeing their last messages.
                threading.Thread(target=self._executor.terminate, daemon=True).start()
            case _:
                self._emit(message)

    def _bind_and_look_up(self, build: Build, pending: Pending, label: str) -> None:
        node = build.nodes[label]
        lack = node.task.lack
        if lack is not None and not lack.keyed:
            self._fail(build, label, TaskFailure.of(lack.error), recorded=False)
            return
        try:
            node.bound = bind(node.task, build.trees, self._store.cas.get_bytes)
        except MissingBlobError as error:
            self._backtrack(build, label, TaskFailure.of(error, error.digest))
            return
        except LlmbuildError as error:
            self._fail(build, label, TaskFailure.of(error))
            return
        node.digest = digest = node.bound.action.digest
        if self._joins(build, node):
            return
        found = None if node.must_run else cached(self._store, digest)
        if found is not None:
            build.finished[digest] = found
            self._succeed(build, label, found, "store")
            return
        if lack is not None:
            self._fail(build, label, TaskFailure.of(lack.error), recorded=False)
            return
        self._emit(events.Queued(time=time.time(), label=label, action=digest))
        if self._explain is not None:
            self._emit(self._explain(node.task, node.bound))
        pending.add(node)

    def _joins(self, build: Build, node: Node) -> bool:
        """Whether an equal task of this build has the result, or will have it soon."""
        label = node.task.label
        if node.digest in build.finished and (not node.must_run or node.digest in build.ran):
            self._succeed(build, label, build.finished[node.action], "build")
            return True
        if node.digest in build.running:
            build.running[node.action].append(label)
            return True
        return False

    def _launch(self, build: Build, node: Node, ready: int) -> None:
        """Start a task, or take its result from an equal one.  `ready` tasks of its kind could run now."""
        if self._joins(build, node):
            return
        assert node.bound is not None
        self._executor.expect(node.task.kind, ready)
        for blob in node.bound.blobs:
            self._store.cas.put_bytes(blob)
        self._store.put_action(ActionRecord(node.bound.action, node.task.label, self._project), node.digest)
        build.running[node.action] = [node.task.label]
        build.memory[node.action] = node.peak or 0
        self._runner.start(node.task.label, node.action, node.must_run)

    # Ends.

    def _finish(self, build: Build, done: Done) -> None:
        labels = build.running.pop(done.digest)
        build.memory.pop(done.digest, None)
        if done.crash is not None:
            raise done.crash
        if done.found is not None:
            build.finished[done.digest] = done.found
            build.ran.add(done.digest)
            for position, label in enumerate(labels):
                source = "build" if position else done.source
                self._succeed(build, label, done.found, source)
            return
        assert done.failure is not None
        if done.failure.missing_blob is not None and not build.stopped:
            for label in labels:
                self._backtrack(build, label, done.failure)
        elif not build.interrupted:
            for label in labels:
                self._fail(build, label, done.failure)

    def _succeed(self, build: Build, label: str, found: Cached, source: str) -> None:
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
                    action=node.action,
                    output=trace.output,
                    output_size=trace.output_size,
                    wall_s=trace.wall_s,
                    cpu_s=trace.cpu_s,
                    peak_rss=trace.peak_rss,
                    notes=trace.notes,
                    reused=trace.reused,
                )
            )
        else:
            self._emit(
                events.CachedTask(
                    time=time.time(),
                    label=label,
                    action=node.action,
                    output=trace.output,
                    source=source,
                    remote=self._sharing.name if self._sharing is not None and source == "remote" else None,
                    output_size=trace.output_size,
                    wall_s=trace.wall_s,
                    notes=trace.notes,
                )
            )
        build.release(label)

    def _backtrack(self, build: Build, label: str, failure: TaskFailure) -> None:
        """An input vanished or was corrupt: run again whatever makes it, then this task."""
        node = build.nodes[label]
        node.active = False
        node.backtracks += 1
        if node.backtracks > _BACKTRACKS:
            self._fail(build, label, failure)
        elif not build.send_back(label, failure.missing_blob):
            build.make_ready(label)

    def _fail(self, build: Build, label: str, failure: TaskFailure, *, recorded: bool = True) -> None:
        """End a task without a result; one that could not run has no record by which it could be run alone."""
        node = build.nodes[label]
        node.active = False
        if recorded:
            failure = self._reword(node.task, failure)
        build.outcomes[label] = Outcome(Status.FAILED, node.digest, failure=failure)
        self._emit(
            events.Failed(time=time.time(), label=label, action=node.digest if recorded else None, failure=failure)
        )
        build.stopped = build.stopped or not self._keep_going
        doomed = list(build.dependents.get(label, ()))
        while doomed:
            dependent = doomed.pop()
            if dependent not in build.outcomes:
                self._skip(build, dependent, label)
                doomed.extend(build.dependents.get(dependent, ()))

    def _skip(self, build: Build, label: str, because: str) -> None:
        build.outcomes[label] = Outcome(Status.SKIPPED)
        self._emit(events.Skipped(time=time.time(), label=label, because=because))

    def _end_children(self) -> None:
        self._runner.cancel()
        if self._sharing is not None:
            self._sharing.stop()
        self._executor.terminate()
        self._runner.join()
        self._store.clean_scratch()

    def _remember(self, build: Build) -> None:
        ran = [outcome.trace for outcome in build.outcomes.values() if outcome.trace and outcome.status is Status.RAN]
        if ran:
            self._store.index.add(ran)
        done = {label: outcome.action for label, outcome in build.outcomes.items() if outcome.trace and outcome.action}
        if self._project and done:
            try:
                self._store.history(self._project).update(done)
            except StoreError as error:
                warn(error, "later reasons compare with an earlier build")
        self._store.uses.add(build.uses())

    def _summarize(self, build: Build, wall: float) -> None:
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

    def _report_held(self, node: Node, needs: int, taken: int) -> None:
        assert self._memory is not None
        self._emit(
            events.WaitingForMemory(
                time=time.time(),
                label=node.task.label,
                action=node.action,
                needs=needs,
                taken=taken,
                budget=self._memory,
            )
        )

    def _report_predicted(self, estimates: Sequence[Estimate]) -> None:
        seconds = tuple(round(one.wall_s, 3) if one.runs else None for one in estimates)
        self._emit(events.Predicted(time=time.time(), seconds=seconds))

    def _signalled(self) -> None:
        if self._stop_asked:
            raise Interrupted("the build was interrupted twice", fix="run it again: it goes on where it stopped")
        self.cancel()
