"""The process in which one action runs: `python -m llmbuild.executors.worker --store DIR --action DIGEST`.

With `--again` the action runs beside its trace, and the last line names its output: `{"done": true, "output": …}`.

What the task prints goes to this process's standard output and error, which the parent sends to a log file.  The
parent's pipe `--events-fd` gets JSON lines: `{"progress": [done, total, unit]}` at most ten times a second,
`{"corrupt": [digest, path]}` for a blob that was damaged and is gone from the store now, and a last line
`{"failure": …}` or `{"done": true}`.  When the pipe on standard input closes, the parent is gone: then this process and
its children end at once, so that no orphan works on.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import json
import os
import signal
import sys
import threading
import time
import traceback
from pathlib import Path

from llmbuild.canonical import Digest, parse_digest
from llmbuild.engine.execute import execute, rerun
from llmbuild.engine.store import Store
from llmbuild.errors import LlmbuildError
from llmbuild.executors.inline import failure_of

_PROGRESS_INTERVAL_S = 0.1
_PR_SET_PDEATHSIG = 1


class _Reporter:
    """Writes lines to the parent's pipe."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._last = 0.0

    def send(self, value: dict[str, object]) -> None:
        with contextlib.suppress(OSError):
            os.write(self._fd, json.dumps(value).encode() + b"\n")

    def progress(self, done: int, total: int, unit: str = "") -> None:
        now = time.monotonic()
        if now - self._last >= _PROGRESS_INTERVAL_S or (total and done >= total):
            self._last = now
            self.send({"progress": [done, total, unit]})


def die_with_parent(parent: int) -> None:
    """End this process group when the parent ends, however it ends."""
    if sys.platform.startswith("linux"):
        # The kernel's own signal also reaches a process that is inside a long call of native code.
        import ctypes

        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os.killpg(0, signal.SIGKILL)

    def watch() -> None:
        while os.read(0, 1):
            pass
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, daemon=True, name="parent watch").start()


def main() -> int:
    """Run the action; returns 0 when its trace is in the store, 1 when the failure was reported."""
    parser = argparse.ArgumentParser(prog="python -m llmbuild.executors.worker")
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--action", type=parse_digest, required=True)
    parser.add_argument("--events-fd", type=int, required=True)
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--log", type=Path)
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--dump", type=Path)
    arguments = parser.parse_args()

    os.set_inheritable(arguments.events_fd, False)
    die_with_parent(arguments.parent)
    return work(
        arguments.store,
        arguments.action,
        arguments.events_fd,
        arguments.log,
        again=arguments.again,
        dump=arguments.dump,
    )


def work(
    root: Path, action: Digest, events_fd: int, log_file: Path | None, *, again: bool, dump: Path | None = None
) -> int:
    """Run an action in this process, which is there for nothing else; see the module for the lines on `events_fd`.

    `log_file` is where standard output goes, None when that is no file of the build.  Returns the process's exit code: 0
    when the action is done, 1 when its failure was reported.
    """
    # The thread that crashed is the one that matters, and the end of the log has place for one.
    faulthandler.enable(all_threads=False)
    reporter = _Reporter(events_fd)

    def log() -> Path | None:
        sys.stdout.flush()
        sys.stderr.flush()
        return log_file

    result: dict[str, object] = {"done": True}
    try:
        store = Store(root)
        try:
            with store.cas.listening(lambda digest, path: reporter.send({"corrupt": [digest, str(path)]})):
                if again:
                    result["output"] = rerun(store, action, progress=reporter.progress).digest
                else:
                    execute(store, action, progress=reporter.progress, log=log, dump=dump)
        finally:
            store.close()
    except Exception as error:
        if not isinstance(error, LlmbuildError):
            traceback.print_exc()
        sys.stderr.flush()
        reporter.send({"failure": failure_of(error).to_json()})
        return 1
    reporter.send(result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
