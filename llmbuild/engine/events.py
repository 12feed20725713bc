"""The events of a build, as values.  The terminal, `--events` and reports are made from these and nothing else.

`to_json` gives one flat object with `v` (the format's version), `type` (the class name in kebab case) and `time`
(seconds since the epoch) before the event's own fields.  A reader ignores types and fields it does not know.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from typing import Any, TypeAlias

from llmbuild.canonical import Digest, Json
from llmbuild.engine.executor import TaskFailure

EVENTS_VERSION = 1


def _kebab(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", name).lower()


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """The base of all events."""

    time: float

    def to_json(self) -> dict[str, Json]:
        name, keys = _layout(type(self))
        value: dict[str, Json] = {"v": EVENTS_VERSION, "type": name}
        for attribute, key in keys:
            item = getattr(self, attribute)
            value[key] = item if type(item) in _PLAIN else _json(item)
        return value


_Layout: TypeAlias = tuple[str, tuple[tuple[str, str], ...]]
_LAYOUTS: dict[str, _Layout] = {}


def _layout(of: type[Event]) -> _Layout:
    """The type's name in JSON, and each field with its key; found once, since a null build has an event for each task."""
    found = _LAYOUTS.get(of.__name__)
    if found is None:
        keys = tuple((one.name, one.name.replace("_", "-")) for one in fields(of))
        found = _LAYOUTS[of.__name__] = _kebab(of.__name__), keys
    return found


_PLAIN = frozenset({str, int, float, bool, type(None)})


def _json(value: Any) -> Json:
    if isinstance(value, TaskFailure):
        return {name.replace("_", "-"): item for name, item in value.to_json().items()}
    return [_json(item) for item in value] if isinstance(value, tuple) else value


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanMade(Event):
    """The build begins: the labels of all its tasks in plan order, and how many may run at a time.

    `needs` has an entry for each task: the positions in `tasks` of those it reads from.  `project` is the project's name.
    """

    tasks: tuple[str, ...]
    jobs: int
    project: str = ""
    needs: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Predicted(Event):
    """The first task has to run: the seconds that each task of the plan took in earlier runs, None where nothing like it ran."""

    seconds: tuple[float | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskEvent(Event):
    """The base of events about one task."""

    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Queued(TaskEvent):
    """All inputs are known and the task must run; it waits for a free place."""

    action: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Started(TaskEvent):
    """A worker begins to run the task."""

    action: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskProgress(TaskEvent):
    """Units done of units in all (0 when unknown)."""

    done: int
    total: int
    unit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingForLock(TaskEvent):
    """Another process runs the same action; its result will be taken."""

    action: Digest
    owner_pid: int | None
    owner_label: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingForMemory(TaskEvent):
    """There is a free place, but the task's predicted peak (`needs`) does not fit into the `budget` beside what the running
    tasks take (`taken`), all in bytes.  Said once a task."""

    action: Digest
    needs: int
    taken: int
    budget: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished(TaskEvent):
    """The task ran here.  Units and notes as in Trace."""

    action: Digest
    output: Digest
    output_size: int
    wall_s: float
    cpu_s: float
    peak_rss: int
    notes: tuple[str, ...] = ()
    reused: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedTask(TaskEvent):
    """The result was there.  `source` is `store`, `build` (an equal task of this build ran), `process` (another
    process ran it while this one waited) or `remote` (it came from the other cache, whose name is `remote` then).
    `output_size` are its bytes, `wall_s` the seconds that it once took, `notes` those of its trace."""

    action: Digest
    output: Digest
    source: str
    remote: str | None = None
    output_size: int = 0
    wall_s: float = 0.0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed(TaskEvent):
    """The task failed; `action` is null where it could not even start: its inputs cannot be read, or it lacks something."""

    action: Digest | None
    failure: TaskFailure


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped(TaskEvent):
    """The task cannot run because another one failed: `because` is that one's label, empty when the build stopped."""

    because: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CorruptBlob(Event):
    """A blob whose bytes did not match its name was dropped from the store."""

    digest: Digest
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary(Event):
    """The build is over.  Counts of tasks by outcome, the seconds it took, and the labels of the failed tasks."""

    ran: int
    cached: int
    failed: int
    skipped: int
    wall_s: float
    interrupted: bool = False
    failures: tuple[str, ...] = field(default=())
