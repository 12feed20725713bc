"""The report on a build, computed from its events alone: causes and what followed, the critical path, the cache.

The events are those of `.llmbuild/last-build.ndjson` or of `--events` (docs/events.md) as JSON objects; unknown types and
fields are skipped.  Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from llmbuild.canonical import Json
from llmbuild.engine.labels import split_label
from llmbuild.plan.reasons import NeverBuilt, reason_from_json, sentence, sentences

Status: TypeAlias = Literal["ran", "cached", "failed", "skipped", "unfinished"]
"""`unfinished` is a task that had started when the build was killed, or that was never reached."""

FORMAT = 1
_SLOWEST = 5


@dataclass(slots=True)
class TaskReport:
    """One task.  Times are seconds since the build began, or of work; sizes are bytes; None where there is none.

    `needs` are the labels of the tasks that it reads from, `reasons` sentences, `causes` the labels of the tasks of this
    build that it followed (empty for a root cause and for what was cached), `source` where a cached result was found; `reused` is
    how many intermediate results were taken from earlier runs, and of how many.
    """

    label: str
    needs: tuple[str, ...] = ()
    status: Status = "unfinished"
    reasons: tuple[str, ...] = ()
    causes: tuple[str, ...] = ()
    start: float | None = None
    end: float | None = None
    wall_s: float | None = None
    cpu_s: float | None = None
    peak_rss: int | None = None
    reused: tuple[int, int] | None = None
    output_size: int | None = None
    source: str = ""
    failure: str = ""

    @property
    def kind(self) -> str:
        return split_label(self.label)[0]

    def to_json(self) -> dict[str, Json]:
        return {name.replace("_", "-"): _plain(getattr(self, name)) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class ReportedCause:
    """A root cause: reasons that some tasks share, those tasks, and the tasks that ran because one of them had.

    `new` is true where the tasks were never built, so that nothing changed.
    """

    reasons: tuple[str, ...]
    tasks: tuple[str, ...]
    followed: tuple[str, ...]
    new: bool = False


@dataclass(frozen=True, slots=True)
class BuildReport:
    """A build.  `ended` is false when it was killed; `wall_s` is then the time of its last event.

    `critical` are the labels of the chain of tasks that took longest, `critical_s` the seconds of their work.
    """

    project: str
    began: float
    jobs: int
    wall_s: float
    ended: bool
    interrupted: bool
    tasks: tuple[TaskReport, ...]
    causes: tuple[ReportedCause, ...]
    critical: tuple[str, ...]
    critical_s: float
    outputs: tuple[str, ...] = ()
    restored: tuple[str, ...] = ()
    dropped: tuple[str, ...] = field(default=())
    checked: tuple[str, ...] = ()
    """The tasks that `build --check` ran again."""
    different: tuple[str, ...] = ()
    """Those of them that gave other bytes."""

    def of(self, *statuses: Status) -> list[TaskReport]:
        """The tasks that ended like this, in plan order."""
        return [task for task in self.tasks if task.status in statuses]

    @property
    def failures(self) -> dict[str, list[str]]:
        """What failed, in plan order, with the labels of the tasks that it was the failure of."""
        found: dict[str, list[str]] = {}
        for task in self.of("failed"):
            found.setdefault(task.failure, []).append(task.label)
        return found

    def slowest(self, count: int = _SLOWEST) -> list[TaskReport]:
        """The tasks of this build that took longest, the longest first."""
        ran = [task for task in self.tasks if task.status == "ran" and task.wall_s is not None]
        return sorted(ran, key=lambda task: (-(task.wall_s or 0), task.label))[:count]

    @property
    def hungriest(self) -> TaskReport | None:
        """The task with the largest peak of memory."""
        ran = [task for task in self.tasks if task.peak_rss]
        return max(ran, key=lambda task: task.peak_rss or 0, default=None)

    @property
    def saved_s(self) -> float:
        """The seconds that the cached tasks once took."""
        return sum(task.wall_s or 0 for task in self.of("cached"))

    @property
    def saved_bytes(self) -> int:
        """The bytes of the outputs that were in the cache."""
        return sum(task.output_size or 0 for task in self.of("cached"))

    @property
    def reused(self) -> tuple[int, int]:
        """How many intermediate results the tasks of this build took from earlier runs, and of how many."""
        ran = [task.reused for task in self.tasks if task.reused is not None]
        return sum(taken for taken, _ in ran), sum(of for _, of in ran)

    def to_json(self) -> dict[str, Json]:
        """The report as a JSON object; its layout is versioned by `format`."""
        hungriest = self.hungriest
        return {
            "format": FORMAT,
            "project": self.project,
            "began": self.began,
            "wall-s": self.wall_s,
            "jobs": self.jobs,
            "ended": self.ended,
            "interrupted": self.interrupted,
            "counts": {status: len(self.of(status)) for status in ("ran", "cached", "failed", "skipped", "unfinished")},
            "causes": [
                {
                    "reasons": list(one.reasons),
                    "tasks": list(one.tasks),
                    "followed": list(one.followed),
                    "new": one.new,
                }
                for one in self.causes
            ],
            "critical-path": {"wall-s": self.critical_s, "tasks": list(self.critical)},
            "cache": {
                "hits": len(self.of("cached")),
                "tasks": len(self.tasks),
                "saved-s": self.saved_s,
                "saved-bytes": self.saved_bytes,
                "reused": list(self.reused),
            },
            "slowest": [task.label for task in self.slowest()],
            "peak-memory": None if hungriest is None else {"task": hungriest.label, "bytes": hungriest.peak_rss},
            "checked": {"tasks": list(self.checked), "different": list(self.different)},
            "outputs": list(self.outputs),
            "restored": list(self.restored),
            "tasks": [task.to_json() for task in self.tasks],
        }


def _plain(value: Any) -> Json:
    return list(value) if isinstance(value, tuple) else value


def build_report(events: Iterable[Mapping[str, Any]]) -> BuildReport:
    """The report on the build with these events; the first of them is its `plan-made`."""
    reader = _Reader()
    for event in events:
        reader.take(event)
    tasks = tuple(reader.tasks.values())
    for task in tasks:
        task.causes = _followed(task, reader)
    critical, critical_s = _critical_path(tasks)
    summary = reader.summary
    return BuildReport(
        project=reader.project,
        began=reader.began or 0.0,
        jobs=reader.jobs,
        wall_s=float(summary["wall-s"]) if summary else reader.latest - (reader.began or reader.latest),
        ended=summary is not None,
        interrupted=bool(summary and summary.get("interrupted")),
        tasks=tasks,
        causes=_causes(tasks),
        critical=critical,
        critical_s=critical_s,
        outputs=reader.outputs,
        restored=reader.restored,
        dropped=tuple(reader.dropped),
        checked=tuple(reader.checked),
        different=tuple(label for label, differs in reader.checked.items() if differs),
    )


class _Reader:
    """Collects the events of each task."""

    def __init__(self) -> None:
        self.project = ""
        self.jobs = 1
        self.began: float | None = None
        self.latest = 0.0
        self.tasks: dict[str, TaskReport] = {}
        self.upstream: dict[str, tuple[str, ...]] = {}
        """For each task that ran, the tasks whose output changed for it; empty where it has reasons of its own."""
        self.outputs: tuple[str, ...] = ()
        self.restored: tuple[str, ...] = ()
        self.dropped: list[str] = []
        self.checked: dict[str, bool] = {}
        self.summary: Mapping[str, Any] | None = None

    def take(self, event: Mapping[str, Any]) -> None:
        time = float(event.get("time", 0.0))
        self.began = time if self.began is None else self.began
        self.latest = max(self.latest, time)
        match event["type"]:
            case "plan-made":
                self.project, self.jobs = event.get("project", ""), event["jobs"]
                labels = event["tasks"]
                needs = event.get("needs") or [()] * len(labels)
                self.tasks = {
                    label: TaskReport(label, tuple(labels[position] for position in positions))
                    for label, positions in zip(labels, needs, strict=True)
                }
            case "installed":
                self.outputs, self.restored = tuple(event["outputs"]), tuple(event["restored"])
            case "corrupt-blob":
                self.dropped.append(event["path"])
            case "checked":
                self.checked[event["label"]] = bool(event["differences"])
            case "summary":
                self.summary = event
            case _ if event.get("label") in self.tasks:
                self._task_event(self.tasks[event["label"]], event, time - self.began)

    def _task_event(self, task: TaskReport, event: Mapping[str, Any], at: float) -> None:
        match event["type"]:
            case "explained":
                reasons = event["reasons"]
                task.reasons = _told(reasons)
                sources = tuple(dict.fromkeys(reason.get("task", "") for reason in reasons))
                follows = all(reason["reason"] == "input-changed" for reason in reasons)
                self.upstream[task.label] = sources if follows else ()
            case "started":
                task.start = at
            case "finished":
                task.status, task.end = "ran", at
                task.wall_s, task.cpu_s, task.peak_rss = event["wall-s"], event["cpu-s"], event["peak-rss"]
                task.output_size = event["output-size"]
                task.reused = (event["reused"][0], event["reused"][1]) if event.get("reused") else None
            case "cached-task":
                # A queued task whose result came from elsewhere did not run, whatever the reason would have been.
                task.status, task.source, task.reasons = "cached", event["source"], ()
                self.upstream.pop(task.label, None)
                task.wall_s, task.output_size = event.get("wall-s", 0.0), event.get("output-size", 0)
            case "failed":
                task.status, task.end = "failed", at
                task.wall_s = None if task.start is None else at - task.start
                task.failure = event["failure"]["what"]
            case "skipped":
                task.status = "skipped"


def _told(reasons: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """The sentences of reasons; for a reason that a newer llmbuild wrote, the recorded one."""
    try:
        return tuple(sentences(map(reason_from_json, reasons)))
    except (KeyError, TypeError):
        return tuple(dict.fromkeys(reason["text"] for reason in reasons))


def _followed(task: TaskReport, reader: _Reader) -> tuple[str, ...]:
    """The tasks of this build that this one ran after because they gave other bytes; none when it has an own reason."""
    sources = reader.upstream.get(task.label, ())
    ran = all(one in reader.tasks and reader.tasks[one].status == "ran" for one in sources)
    return sources if ran else ()


def _causes(tasks: Sequence[TaskReport]) -> tuple[ReportedCause, ...]:
    """The root causes: tasks that ran for reasons of their own, those with the same reasons together."""
    by_label = {task.label: task for task in tasks}
    roots: dict[tuple[str, ...], list[str]] = {}
    followed: dict[tuple[str, ...], list[str]] = {}
    for task in tasks:
        if not task.reasons:
            continue
        if not task.causes:
            roots.setdefault(task.reasons, []).append(task.label)
            continue
        for reasons in dict.fromkeys(_roots(task, by_label)):
            followed.setdefault(reasons, []).append(task.label)
    new = (sentence(NeverBuilt()),)
    return tuple(
        ReportedCause(reasons, tuple(labels), tuple(followed.get(reasons, ())), reasons == new)
        for reasons, labels in roots.items()
    )


def _roots(task: TaskReport, by_label: Mapping[str, TaskReport]) -> list[tuple[str, ...]]:
    pending, seen, found = list(task.causes), {task.label}, []
    while pending:
        label = pending.pop()
        if label in seen:
            continue
        seen.add(label)
        upstream = by_label[label]
        pending += upstream.causes
        if not upstream.causes:
            found.append(upstream.reasons)
    return found


def _critical_path(tasks: Sequence[TaskReport]) -> tuple[tuple[str, ...], float]:
    """The chain of tasks with the most seconds of work in this build, upstream first; only tasks that ran are named."""
    import networkx as nx

    work = {task.label: (task.wall_s or 0.0) if task.status in ("ran", "failed") else 0.0 for task in tasks}
    graph: nx.DiGraph[str] = nx.DiGraph()
    for task in tasks:
        # The edges that lead to a task carry its work; the empty label precedes the first task of each chain.
        for need in ("", *(need for need in task.needs if need in work)):
            graph.add_edge(need, task.label, work=work[task.label])
    chain = nx.dag_longest_path(graph, weight="work") if tasks else []
    ran = {task.label for task in tasks if task.status in ("ran", "failed")}
    return tuple(label for label in chain if label in ran), sum(work[label] for label in chain if label in work)
