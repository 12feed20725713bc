"""The interface of a place where actions run, as the scheduler needs it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from llmbuild.canonical import Digest, Json, known_digest
from llmbuild.engine.kind import Progress, no_progress
from llmbuild.errors import ExitCode, LlmbuildError

if TYPE_CHECKING:
    from llmbuild.engine.lookup import Cached


@dataclass(frozen=True, slots=True)
class TaskFailure:
    """Why an action has no result, in a form that crosses process borders.

    `what`, `where`, `why` and `fix` are as in LlmbuildError.  `missing_blob` names an input that was not in the store,
    `signal` the signal that ended the worker; `log` is the path of the log and `log_tail` its last lines.
    """

    what: str
    where: str | None = None
    why: str | None = None
    fix: str | None = None
    exit_code: int = int(ExitCode.FAILED)
    missing_blob: Digest | None = None
    signal: int | None = None
    log: str | None = None
    log_tail: str = ""

    @staticmethod
    def of(error: LlmbuildError, missing_blob: Digest | None = None) -> TaskFailure:
        return TaskFailure(error.what, error.where, error.why, error.fix, int(error.exit_code), missing_blob)

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> TaskFailure:
        return TaskFailure(**{**value, "missing_blob": known_digest(value.get("missing_blob"))})

    def to_json(self) -> dict[str, Json]:
        return {name: getattr(self, name) for name in self.__slots__}

    def to_error(self) -> LlmbuildError:
        """The error to show or raise, with its exit code."""
        error = LlmbuildError(self.what, where=self.where, why=self.why, fix=self.fix)
        try:
            error.exit_code = ExitCode(self.exit_code)
        except ValueError:
            error.exit_code = ExitCode.FAILED
        return error


class Executor(Protocol):
    """Runs recorded actions of one store.  `run` and `rerun` are called from several threads at once.

    The caller of `run` holds the action's lock.
    """

    def run(self, action: Digest, progress: Progress) -> Cached | TaskFailure | None:
        """Run one action to its end; returns the result when it was made in this process, None when its trace is in the
        store now and was not looked at."""
        ...

    def rerun(self, action: Digest, progress: Progress = no_progress) -> Digest | TaskFailure:
        """Run an action beside its trace and from nothing; returns the digest of the output tree that came out this time."""
        ...

    def expect(self, kind: str, count: int) -> None:
        """Called before a task is launched: `count` tasks of its kind, this one included, can run as soon as there is place,
        which is worth a preparation that they share."""
        ...

    def terminate(self) -> None:
        """End all that runs, and let nothing start any more; the `run` calls return soon with a failure."""
        ...
