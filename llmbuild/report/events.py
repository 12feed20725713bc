"""Events that the planner adds to those of the engine, for the same stream and the same readers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmbuild.canonical import Digest
from llmbuild.engine.events import Event, TaskEvent
from llmbuild.plan.reasons import Reason, reason_to_json

if TYPE_CHECKING:
    from llmbuild.engine.compare import FileDifference


@dataclass(frozen=True, slots=True, kw_only=True)
class Explained(TaskEvent):
    """Why the task that was queued has to run; comes just after its `Queued`.  In JSON each reason is an object."""

    reasons: tuple[Reason, ...]

    def to_json(self) -> dict[str, object]:  # type: ignore[override]
        value: dict[str, object] = {**TaskEvent.to_json(self)}
        return value | {"reasons": [reason_to_json(reason) for reason in self.reasons]}


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed(Event):
    """The output directory is up to date: files written because their task's output is new, restored because they had
    been edited or deleted, removed because nothing makes them any more, kept although obsolete because the user edited
    them; and the top-level outputs."""

    written: tuple[str, ...] = ()
    restored: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked(TaskEvent):
    """A task ran again to be compared with its trace: `differences` is empty when all its files are the same."""

    action: Digest
    files: int
    wall_s: float
    differences: tuple[FileDifference, ...] = ()

    def to_json(self) -> dict[str, object]:  # type: ignore[override]
        value: dict[str, object] = {**TaskEvent.to_json(self)}
        return value | {"differences": [difference.to_json() for difference in self.differences]}
