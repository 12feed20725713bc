"""Running actions in this process, one after another: where a process a task is too much."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable
from typing import TypeVar

from llmbuild.canonical import Digest
from llmbuild.engine.cas import MissingBlobError
from llmbuild.engine.execute import execute, rerun
from llmbuild.engine.executor import TaskFailure
from llmbuild.engine.kind import Progress, no_progress
from llmbuild.engine.lookup import Cached
from llmbuild.engine.store import Store
from llmbuild.errors import ExitCode, Interrupted, LlmbuildError

_Result = TypeVar("_Result")


def failure_of(error: Exception) -> TaskFailure:
    """What to report for an exception that ended a task."""
    if isinstance(error, MissingBlobError):
        return TaskFailure.of(error, error.digest)
    if isinstance(error, LlmbuildError):
        return TaskFailure.of(error)
    if isinstance(error, MemoryError):
        return TaskFailure(
            "the task ran out of memory",
            why="the machine, or a limit of this process (`ulimit -v`), gave it no more",
            fix="let fewer tasks run at once (--jobs 1, or a smaller --memory), or raise the limit",
            log_tail="".join(traceback.format_exception(error)),
        )
    return TaskFailure(
        f"internal error: {type(error).__name__}: {error}",
        why="this is a bug in llmbuild or in a module of task kinds",
        exit_code=int(ExitCode.INTERNAL),
        log_tail="".join(traceback.format_exception(error)),
    )


def open_executor(store: Store) -> InlineExecutor:
    return InlineExecutor(store)


class InlineExecutor:
    """An executor without processes.  What a task prints goes where this process prints."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._one_at_a_time = threading.Lock()
        self._ended = False

    def run(self, action: Digest, progress: Progress) -> Cached | TaskFailure:
        return self._alone(lambda: execute(self._store, action, progress=progress))

    def rerun(self, action: Digest, progress: Progress = no_progress) -> Digest | TaskFailure:
        return self._alone(lambda: rerun(self._store, action, progress=progress).digest)

    def expect(self, kind: str, count: int) -> None:
        """Nothing to prepare: all tasks share this process."""

    def terminate(self) -> None:
        """Let nothing start any more; a running task goes on to its end."""
        self._ended = True

    def _alone(self, work: Callable[[], _Result]) -> _Result | TaskFailure:
        with self._one_at_a_time:
            if self._ended:
                return TaskFailure.of(Interrupted("the build was interrupted"))
            try:
                return work()
            except Exception as error:
                return failure_of(error)
