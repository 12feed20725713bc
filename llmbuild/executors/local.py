"""Running actions on this machine, each in a process of its own.

A crash of native code, a leak or an out-of-memory kill ends one task and not the build, and each task's CPU time and
peak memory can be told apart.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import llmbuild
from llmbuild.canonical import Digest
from llmbuild.engine import fs
from llmbuild.engine.executor import TaskFailure
from llmbuild.engine.store import Store
from llmbuild.errors import ExitCode, Interrupted, LlmbuildError
from llmbuild.tasks.kind import Progress

_GRACE_S = 2.0
"""How long workers have to end after SIGTERM before SIGKILL."""

_TAIL_BYTES = 4096
_TAIL_LINES = 20


class LocalExecutor:
    """Starts a worker process for each action; `run` may be called from many threads."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._guard = threading.Lock()
        self._workers: set[subprocess.Popen[bytes]] = set()
        self._ended = False

    def run(self, action: Digest, progress: Progress, lock_fd: int | None = None) -> TaskFailure | None:
        """Run one action in a worker; see the Executor protocol."""
        log = self._store.log_path(action)
        started = time.monotonic()
        try:
            process, events = self._start(action, log, lock_fd)
        except OSError as error:
            return TaskFailure.of(fs.store_error(error, "start a worker process", log))
        except LlmbuildError as error:
            return TaskFailure.of(error)
        failure: TaskFailure | None = None
        done = False
        try:
            with os.fdopen(events, "rb") as stream:
                for line in stream:
                    message = _parse(line)
                    if "progress" in message:
                        progress(*message["progress"])
                    elif "failure" in message:
                        failure = TaskFailure.from_json(message["failure"])
                    elif "done" in message:
                        done = True
            status, usage = self._wait(process)
        finally:
            if process.stdin is not None:
                process.stdin.close()
        if done:
            with contextlib.suppress(OSError):
                fs.current.unlink(log)
            return None
        if self._ended:
            return TaskFailure.of(Interrupted("the build was interrupted"))
        if failure is None:
            # The worker could not clean up after itself.
            self._store.clean_scratch()
            failure = _crash(status, usage, time.monotonic() - started, action)
        return replace(failure, log=str(log), log_tail=_tail(log) or failure.log_tail)

    def expect(self, kind: str, count: int) -> None:
        """Nothing to prepare: each worker starts alone."""

    def terminate(self) -> None:
        """End all workers and their children: SIGTERM, and SIGKILL for those that are still there after two seconds."""
        with self._guard:
            self._ended = True
            workers = list(self._workers)
        self._signal(workers, signal.SIGTERM)
        deadline = time.monotonic() + _GRACE_S
        while time.monotonic() < deadline:
            with self._guard:
                if not self._workers:
                    break
            time.sleep(0.01)
        self._signal(workers, signal.SIGKILL)

    def _signal(self, workers: list[subprocess.Popen[bytes]], number: int) -> None:
        with self._guard:
            # A worker leaves the set in the step that reaps it, so that no other process can have its id yet.
            for process in self._workers.intersection(workers):
                _signal_group(process, number)

    def _wait(self, process: subprocess.Popen[bytes]) -> tuple[int, float]:
        """Wait for the worker and end what it left running; returns its exit code (negative: a signal) and its peak
        resident set in MiB."""
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        with self._guard:
            _signal_group(process, signal.SIGKILL)
            _pid, status, usage = os.wait4(process.pid, 0)
            self._workers.discard(process)
        process.returncode = os.waitstatus_to_exitcode(status)
        unit = 1 if sys.platform == "darwin" else 1024
        return process.returncode, usage.ru_maxrss * unit / 2**20

    def _start(self, action: Digest, log: Path, lock_fd: int | None) -> tuple[subprocess.Popen[bytes], int]:
        fs.current.mkdir(log.parent)
        package_root = str(Path(llmbuild.__file__).parent.parent)
        python_path = [package_root, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(python_path), "PYTHONHASHSEED": "0"}
        read_end, write_end = os.pipe()
        try:
            with self._guard, log.open("wb") as output:
                if self._ended:
                    raise Interrupted("the build was interrupted")
                command = [sys.executable, "-P", "-m", "llmbuild.executors.worker"]
                command += ["--store", str(self._store.root), "--action", action]
                command += ["--events-fd", str(write_end), "--parent", str(os.getpid()), "--log", str(log)]
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    cwd=self._store.scratch(),
                    env=environment,
                    pass_fds=(write_end,) if lock_fd is None else (write_end, lock_fd),
                    start_new_session=True,
                )
                self._workers.add(process)
        except BaseException:
            os.close(read_end)
            raise
        finally:
            os.close(write_end)
        return process, read_end


def _parse(line: bytes) -> dict[str, Any]:
    try:
        message = json.loads(line)
    except ValueError:
        # A worker that was killed in the middle of a line.
        return {}
    return message if isinstance(message, dict) else {}


def _crash(status: int, peak_mib: float, seconds: float, action: Digest) -> TaskFailure:
    """A worker ended without saying why."""
    measured = f"after {seconds:.1f} s, with a peak of {peak_mib:.0f} MiB of memory"
    reproduce = f"`llmbuild exec {action[:16]}` runs it again alone"
    if status == -signal.SIGKILL:
        return TaskFailure(
            f"the worker was killed (SIGKILL) {measured}",
            why="most often this is the kernel's out-of-memory killer",
            fix=f"run fewer tasks at once (--jobs 1) or give the machine more memory; {reproduce}",
            signal=-status,
        )
    if status < 0:
        name = signal.Signals(-status).name if -status in set(signal.Signals) else f"signal {-status}"
        return TaskFailure(f"the worker crashed ({name}) {measured}", fix=reproduce, signal=-status)
    return TaskFailure(
        f"the worker ended with exit code {status} {measured}", fix=reproduce, exit_code=int(ExitCode.INTERNAL)
    )


def _signal_group(process: subprocess.Popen[bytes], number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _tail(log: Path) -> str:
    """The last lines of a log."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-_TAIL_LINES:])
