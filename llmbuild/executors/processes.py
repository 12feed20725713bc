"""Workers as the local executor sees them: started alone, or forked by a server."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from llmbuild.canonical import Digest
from llmbuild.engine.action import Action
from llmbuild.engine.registry import load_kind
from llmbuild.executors import forkserver
from llmbuild.programs.environment import CONSTANTS, required_variables, seen


class Worker(Protocol):
    """A process that runs one action."""

    def wait(self) -> tuple[int, int] | None:
        """Wait for its end and end what it left running; returns its exit code (negative: a signal) and its peak resident set
        in bytes, or None when whoever started it is gone and cannot report them."""
        ...

    def signal(self, number: int) -> None:
        """Send a signal to the worker's process group, if the worker is still there."""
        ...


def environment(seen: Mapping[str, str]) -> dict[str, str]:
    """The environment of a worker: what it sees of this process's, with llmbuild to import and what is the same everywhere."""
    package_root = str(Path(__file__).parent.parent.parent)
    python_path = [package_root, *filter(None, seen.get("PYTHONPATH", "").split(os.pathsep))]
    return {**seen, "PYTHONPATH": os.pathsep.join(python_path), **CONSTANTS}


def environment_of(action: Action) -> dict[str, str]:
    """The environment of an action's worker.

    Raises ToolchainError when a variable that is in the key has another value here.
    """
    if load_kind(action.kind).whole_environment:
        return environment(os.environ)
    return environment(seen(required_variables(action.tools)))


class Streams:
    """The ends of a worker's pipes: it reads nothing from `stdin` but its end, and writes JSON lines to `events`.

    What it prints goes to the file `log`, or without one to this process's standard output.  The worker's ends must be
    closed here as soon as it has them (`given`), ours when it has ended (`close`).
    """

    def __init__(self, log: Path | None) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        self.log = os.dup(1) if log is None else os.open(log, flags, 0o644)
        self.stdin, self._stdin_writer = os.pipe()
        reader, self.events = os.pipe()
        self.reader = os.fdopen(reader, "rb")

    def given(self) -> None:
        for descriptor in (self.stdin, self.events, self.log):
            os.close(descriptor)

    def close(self) -> None:
        self.reader.close()
        os.close(self._stdin_writer)


class Alone:
    """A worker with an interpreter of its own.  Raises OSError when it cannot be started."""

    def __init__(
        self,
        store: Path,
        cwd: Path,
        environment: Mapping[str, str],
        action: Digest,
        log: Path | None,
        streams: Streams,
        lock_fd: int | None,
        again: bool,
        dump: Path | None = None,
    ) -> None:
        command = [sys.executable, "-P", "-m", "llmbuild.executors.worker", "--store", str(store), "--action", action]
        command += ["--events-fd", str(streams.events), "--parent", str(os.getpid())]
        command += [] if log is None else ["--log", str(log)]
        command += ["--again"] if again else []
        command += [] if dump is None else ["--dump", str(dump)]
        self._guard = threading.Lock()
        self._reaped = False
        self._process = subprocess.Popen(
            command,
            stdin=streams.stdin,
            stdout=streams.log,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            env=environment,
            pass_fds=(streams.events,) if lock_fd is None else (streams.events, lock_fd),
            start_new_session=True,
        )

    def wait(self) -> tuple[int, int] | None:
        if hasattr(os, "waitid"):
            os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
            self.signal(signal.SIGKILL)
            with self._guard:
                _pid, status, usage = os.wait4(self._process.pid, 0)
                self._reaped = True
        else:
            # On macOS before Python 3.13 an end is seen only by reaping.
            _pid, status, usage = os.wait4(self._process.pid, 0)
            self.signal(signal.SIGKILL)
            with self._guard:
                self._reaped = True
        self._process.returncode = os.waitstatus_to_exitcode(status)
        return self._process.returncode, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)

    def signal(self, number: int) -> None:
        # Under the guard the process is not reaped, so that no other one can have its number.
        with self._guard, contextlib.suppress(ProcessLookupError, PermissionError):
            if not self._reaped:
                os.killpg(self._process.pid, number)


class Forked:
    """A worker that a server forked."""

    def __init__(self, server: ForkServer, number: int) -> None:
        self._server, self._number = server, number
        self.ended: queue.SimpleQueue[tuple[int, int] | None] = queue.SimpleQueue()

    def wait(self) -> tuple[int, int] | None:
        return self.ended.get()

    def signal(self, number: int) -> None:
        self._server.signal(self._number, number)


class ForkServer:
    """The build's side of a server that has imported `modules`.  Starting it takes no time: it imports meanwhile."""

    def __init__(self, store: Path, cwd: Path, modules: tuple[str, ...]) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, "-P", "-m", "llmbuild.executors.forkserver"]
            command += ["--control-fd", str(theirs.fileno()), "--store", str(store), *modules]
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd=cwd,
                env=environment(seen()),
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        self._guard = threading.Lock()
        self._workers: dict[int, Forked] = {}
        self._started = 0
        self._gone = False
        self.refused: str | None = None
        """Why the server forks nothing, when it does not."""
        self._settled = threading.Event()
        threading.Thread(target=self._listen, daemon=True, name="fork server").start()

    def start(
        self, store: Path, action: Digest, log: Path, streams: Streams, lock_fd: int | None, again: bool
    ) -> Forked | None:
        """Fork a worker, waiting for the imports if need be; None when the server cannot."""
        self._settled.wait()
        descriptors = [streams.stdin, streams.log, streams.events, *(() if lock_fd is None else (lock_fd,))]
        with self._guard:
            if self._gone or self.refused is not None:
                return None
            self._started += 1
            worker = self._workers[self._started] = Forked(self, self._started)
            request = {"run": self._started, "store": str(store), "action": action, "log": str(log), "again": again}
            forkserver.send(self._control, request, descriptors)
        return worker

    def signal(self, worker: int, number: int) -> None:
        """Have a signal sent to a worker's process group, if the worker is still there."""
        with self._guard:
            if worker in self._workers and not self._gone:
                forkserver.send(self._control, {"signal": number, "ids": [worker]})

    def close(self) -> None:
        """End the server, and with it what it forked."""
        with contextlib.suppress(OSError):
            self._control.shutdown(socket.SHUT_RDWR)
        try:
            self._process.wait(1.0)
        except subprocess.TimeoutExpired:
            # It may be in the middle of its imports.
            self._process.kill()
            self._process.wait()

    def _listen(self) -> None:
        while data := self._receive():
            message = json.loads(data)
            if "ended" in message:
                with self._guard:
                    worker = self._workers.pop(message["ended"])
                worker.ended.put((message["code"], message["peak"]))
            else:
                self.refused = message.get("refused")
                self._settled.set()
        with self._guard:
            self._gone = True
            lost = list(self._workers.values())
            self._workers.clear()
        self._settled.set()
        for worker in lost:
            worker.ended.put(None)

    def _receive(self) -> bytes:
        try:
            return self._control.recv(forkserver.MESSAGE)
        except OSError:
            return b""
