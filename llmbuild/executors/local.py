"""Running actions on this machine, each in a process of its own.

A crash of native code, a leak or an out-of-memory kill ends one task and not the build, and each task's CPU time and peak
memory can be measured.
"""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from llmbuild.canonical import Digest, parse_digest
from llmbuild.engine import files, fs
from llmbuild.engine.action import Action
from llmbuild.engine.executor import TaskFailure
from llmbuild.engine.kind import Progress, no_progress
from llmbuild.engine.memory import oom_kills
from llmbuild.engine.registry import load_kind
from llmbuild.engine.store import Store
from llmbuild.errors import ExitCode, Interrupted, LlmbuildError
from llmbuild.executors.processes import Alone, ForkServer, Streams, Worker, environment_of
from llmbuild.programs.environment import variables

_GRACE_S = 2.0
"""How long workers have to end after SIGTERM before SIGKILL."""

_TAIL_BYTES = 4096
_TAIL_LINES = 40


def open_executor(store: Store) -> LocalExecutor:
    return LocalExecutor(store)


class LocalExecutor:
    """Starts a worker process for each action; `run` may be called from many threads.

    Workers of a kind that preloads modules are forks of one process that has imported them, once several such tasks
    wait; on systems where a fork is not safe each worker imports them itself.
    """

    def __init__(self, store: Store, *, terminal: bool = False, dump: Path | None = None) -> None:
        """With `terminal`, what a worker prints goes where this process prints, and not into a log.  `dump` is the directory
        for a task's intermediate results (`Job.dump`)."""
        self._store = store
        self._terminal = terminal
        self._dump = dump
        self._guard = threading.Lock()
        self._workers: set[Worker] = set()
        self._servers: dict[tuple[str, ...], ForkServer] = {}
        self._ended = False

    def run(self, action: Digest, progress: Progress) -> TaskFailure | None:
        """Run one action in a worker; see the Executor protocol."""
        result = self._work(action, progress)
        return result if isinstance(result, TaskFailure) else None

    def rerun(self, action: Digest, progress: Progress = no_progress) -> Digest | TaskFailure:
        """Run an action beside its trace in a worker; see the Executor protocol."""
        result = self._work(action, progress, again=True)
        return result if isinstance(result, TaskFailure) else parse_digest(result["output"])

    def expect(self, kind: str, count: int) -> None:
        """Start a server for the kind's slow imports when more than one of its tasks waits."""
        if count < 2 or not sys.platform.startswith("linux"):
            return
        modules = load_kind(kind).preload
        with self._guard:
            if modules and modules not in self._servers and not self._ended:
                with contextlib.suppress(OSError):
                    # A machine without room for one more process reports that when the worker starts.
                    self._servers[modules] = ForkServer(self._store.root, self._store.scratch(), modules)

    def terminate(self) -> None:
        """End all workers and their children: SIGTERM, and SIGKILL for those that are still there after two seconds."""
        with self._guard:
            self._ended = True
            workers, servers = set(self._workers), list(self._servers.values())
            self._servers.clear()
        for number, patience in ((signal.SIGTERM, _GRACE_S), (signal.SIGKILL, _GRACE_S)):
            for worker in workers:
                worker.signal(number)
            deadline = time.monotonic() + patience
            while workers and time.monotonic() < deadline:
                time.sleep(0.01)
                with self._guard:
                    workers &= self._workers
        for server in servers:
            server.close()

    def _work(
        self, action: Digest, progress: Progress, *, again: bool = False, alone: bool = False
    ) -> dict[str, Any] | TaskFailure:
        """The worker's last message, or why there is none."""
        log = self._store.log_path(action) if not again else self._store.log_path(action).with_suffix(".again.log")
        started, killed_before = time.monotonic(), oom_kills()
        try:
            worker, streams = self._start(action, log, again, alone)
        except (OSError, LlmbuildError) as error:
            wrong = error if isinstance(error, LlmbuildError) else fs.store_error(error, "start a worker process", log)
            return TaskFailure.of(wrong)
        failure: TaskFailure | None = None
        done: dict[str, Any] | None = None
        try:
            for line in streams.reader:
                message = _parse(line)
                if "progress" in message:
                    progress(*message["progress"])
                elif "corrupt" in message:
                    digest, path = message["corrupt"]
                    self._store.cas.report_corrupt(parse_digest(digest), Path(path))
                elif "failure" in message:
                    failure = TaskFailure.from_json(message["failure"])
                elif "done" in message:
                    done = message
            end = worker.wait()
        finally:
            streams.close()
            with self._guard:
                self._workers.discard(worker)
        if done is not None:
            with contextlib.suppress(OSError):
                fs.current.unlink(log)
            return done
        if self._ended:
            return TaskFailure.of(Interrupted("the build was interrupted"))
        if failure is None:
            # The worker could not clean up after itself.
            self._store.clean_scratch()
            if end is None:
                # The server was killed, and its forks with it; that is no fault of this task.
                return self._work(action, progress, again=again, alone=True)
            killed = oom_kills()
            out_of_memory = None if killed is None or killed_before is None else killed > killed_before
            failure = _crash(*end, time.monotonic() - started, action, out_of_memory)
        return failure if self._terminal else replace(failure, log=str(log), log_tail=_tail(log) or failure.log_tail)

    def _start(self, action: Digest, log: Path, again: bool, alone: bool) -> tuple[Worker, Streams]:
        if not self._terminal:
            fs.current.mkdir(log.parent)
            # What lies there is of an earlier run, or is somebody's way to another file.
            files.remove_tree(log, self._store.root)
        wanted = self._store.get_action(action).action
        environment = environment_of(wanted)
        server = None if alone else self._server(wanted)
        # A run beside the trace is no successor of anything, and needs no lock.
        lock_fd = None if again else self._store.held_lock(action)
        streams = Streams(None if self._terminal else log)
        try:
            worker: Worker | None = None
            if server is not None:
                # Not under the guard: it waits for the imports, and `terminate` must not wait for them.
                worker = server.start(self._store.root, action, log, streams, lock_fd, again)
            with self._guard:
                if self._ended:
                    if worker is not None:
                        worker.signal(signal.SIGKILL)
                    raise Interrupted("the build was interrupted")
                if worker is None:
                    scratch = self._store.scratch()
                    place = None if self._terminal else log
                    worker = Alone(
                        self._store.root, scratch, environment, action, place, streams, lock_fd, again, self._dump
                    )
                self._workers.add(worker)
        except BaseException:
            streams.close()
            raise
        finally:
            streams.given()
        return worker, streams

    def _server(self, action: Action) -> ForkServer | None:
        """The server that may fork the action's worker: its workers see no variables but those of every task."""
        if variables(action.tools):
            return None
        modules = load_kind(action.kind).preload
        with self._guard:
            return self._servers.get(modules)


def _parse(line: bytes) -> dict[str, Any]:
    try:
        message = json.loads(line)
    except ValueError:
        # A worker that was killed in the middle of a line.
        return {}
    return message if isinstance(message, dict) else {}


def _crash(status: int, peak: int, seconds: float, action: Digest, out_of_memory: bool | None) -> TaskFailure:
    """A worker ended without reporting why.  `out_of_memory` is whether the kernel has killed for memory meanwhile, None where
    it does not report that."""
    measured = f"after {seconds:.1f} s, with a peak of {peak / 2**20:.0f} MiB of memory"
    reproduce = f"`llmbuild exec {action[:16]}` runs it again alone"
    if status == -signal.SIGKILL:
        if out_of_memory is False:
            why = "not for want of memory, says the kernel: another process sent the signal"
            return TaskFailure(f"the worker was killed (SIGKILL) {measured}", why=why, fix=reproduce, signal=-status)
        most = "the kernel ran out of memory and chose it" if out_of_memory else "most often that is want of memory"
        return TaskFailure(
            f"the worker was killed (SIGKILL) {measured}",
            why=most,
            fix=f"let fewer tasks run at once (--jobs 1, or a smaller --memory) or give the machine more; {reproduce}",
            signal=-status,
        )
    if status < 0:
        name = signal.Signals(-status).name if -status in set(signal.Signals) else f"signal {-status}"
        return TaskFailure(f"the worker crashed ({name}) {measured}", fix=reproduce, signal=-status)
    return TaskFailure(
        f"the worker ended with exit code {status} {measured}", fix=reproduce, exit_code=int(ExitCode.INTERNAL)
    )


def _tail(log: Path) -> str:
    """The last lines of a log."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-_TAIL_LINES:])
