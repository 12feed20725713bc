"""A process that has imported slow modules once and forks a worker for each action: `python -m llmbuild.executors.forkserver`.

Importing TVM takes longer than compiling a small model.  When several tasks need it, this server imports it once, in a
single thread and without using it, and each worker is a fork of that state: a fresh worker that has just imported the
same modules, in a process group of its own, with the same environment, hash seed and standard streams.  A server that
finds more than its own thread after the imports refuses to fork, because a fork copies only one thread and whatever
locks the others held.

The socket carries one JSON object a message.  From the build: `{"run": id, "store", "action", "log", "again"}` with the
descriptors of standard input, the log, the pipe for events and the action's lock, and `{"signal": number, "ids": […]}`.
To the build: `{"ready": true}` or `{"refused": why}`, and for each worker `{"ended": id, "code": …, "peak": bytes}`.
The server reaps workers and sends them signals, so that no signal can reach a process that has taken over a number.
A worker's peak begins with what the server had in memory of its own when it forked (Linux copies that number), as after
imports of its own; pages of libraries count when the worker touches them.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import json
import os
import selectors
import signal
import socket
import sys
from pathlib import Path
from typing import Any

from llmbuild.canonical import parse_digest
from llmbuild.executors.worker import die_with_parent, work

MESSAGE = 1 << 16
"""Bytes that a message never exceeds."""

_DESCRIPTORS = 4


class Server:
    """Forks and reaps workers as long as the build is there."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._selector = selectors.DefaultSelector()
        self._selector.register(control, selectors.EVENT_READ)
        self._workers: dict[int, tuple[int, int]] = {}
        """By id: the process and its pidfd."""

    def serve(self) -> None:
        """Answer until the build closes its end; workers die with this process."""
        while True:
            for key, _ in self._selector.select():
                if key.data is not None:
                    self._reap(key.data)
                elif not self._answer():
                    return

    def _answer(self) -> bool:
        data, descriptors, _flags, _address = socket.recv_fds(self._control, MESSAGE, _DESCRIPTORS)
        if not data:
            return False
        message: dict[str, Any] = json.loads(data)
        if "run" in message:
            self._fork(message, descriptors)
        else:
            for worker in message["ids"]:
                if worker in self._workers:
                    _signal_group(self._workers[worker][0], message["signal"])
        return True

    def _fork(self, message: dict[str, Any], descriptors: list[int]) -> None:
        server = os.getpid()
        process = os.fork()
        if process == 0:
            code = 70
            try:
                self._control.close()
                self._selector.close()
                for _, pidfd in self._workers.values():
                    os.close(pidfd)
                code = _be_worker(message, descriptors, server)
            finally:
                # Whatever happens, this copy must not go on as a second server.
                os._exit(code)
        for descriptor in descriptors:
            os.close(descriptor)
        pidfd = os.pidfd_open(process)
        self._workers[message["run"]] = (process, pidfd)
        self._selector.register(pidfd, selectors.EVENT_READ, message["run"])

    def _reap(self, worker: int) -> None:
        process, pidfd = self._workers.pop(worker)
        self._selector.unregister(pidfd)
        os.close(pidfd)
        # What the worker left running shares its group, and its number is taken as long as it is not reaped.
        _signal_group(process, signal.SIGKILL)
        _, status, usage = os.wait4(process, 0)
        code = os.waitstatus_to_exitcode(status)
        send(self._control, {"ended": worker, "code": code, "peak": usage.ru_maxrss * 1024})


def _be_worker(message: dict[str, Any], descriptors: list[int], server: int) -> int:
    os.setsid()
    stdin, log, events, *_lock = descriptors
    for descriptor, number in ((stdin, 0), (log, 1), (log, 2)):
        os.dup2(descriptor, number)
    os.close(stdin)
    os.close(log)
    # Received descriptors go over to programs that a worker runs, unlike opened ones.
    os.set_inheritable(events, False)
    die_with_parent(server)
    code = work(
        Path(message["store"]), parse_digest(message["action"]), events, Path(message["log"]), again=message["again"]
    )
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def _signal_group(process: int, number: int) -> None:
    try:
        os.killpg(process, number)
    except (ProcessLookupError, PermissionError):
        # It has not made its group yet.
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, number)


def send(control: socket.socket, message: dict[str, object], descriptors: list[int] | None = None) -> None:
    """Send one message; a peer that has gone is found by reading.  Raises ValueError for one that is too long."""
    data = json.dumps(message).encode()
    if len(data) > MESSAGE:
        raise ValueError(f"a message of {len(data)} bytes is too long")
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        socket.send_fds(control, [data], descriptors or [])


def preload(modules: list[str]) -> str | None:
    """Import the modules; returns why this process must not be forked, or None."""
    try:
        for module in modules:
            importlib.import_module(module)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    threads = len(os.listdir("/proc/self/task"))  # noqa: PTH208 - a count, and no paths.
    return None if threads == 1 else f"importing {', '.join(modules)} started {threads - 1} threads"


def main() -> int:
    """Import, then serve until the build has gone."""
    parser = argparse.ArgumentParser(prog="python -m llmbuild.executors.forkserver")
    parser.add_argument("--control-fd", type=int, required=True)
    parser.add_argument("--store", type=Path, required=True, help="only to be seen in a list of processes")
    parser.add_argument("modules", nargs="+")
    arguments = parser.parse_args()
    control = socket.socket(fileno=arguments.control_fd)
    control.set_inheritable(False)
    refused = preload(arguments.modules)
    if refused is not None:
        send(control, {"refused": refused})
        return 1
    # Objects that are there for good are not to be written to by the collector of each fork.
    gc.collect()
    gc.freeze()
    send(control, {"ready": True})
    Server(control).serve()
    return 0


if __name__ == "__main__":
    sys.exit(main())
