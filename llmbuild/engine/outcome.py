"""How the tasks of a build ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from llmbuild.canonical import Digest
from llmbuild.engine.executor import TaskFailure
from llmbuild.engine.trace import Trace
from llmbuild.engine.tree import Tree
from llmbuild.errors import ExitCode


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
