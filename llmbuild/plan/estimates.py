"""What a plan will take: time, memory, bytes to download and new disk, from earlier runs of tasks like its own.  Pure.

Where no task of a kind ever ran the numbers are what the kind declares, and `runs` is 0; whoever shows them says so.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from llmbuild.canonical import Digest, known_digest
from llmbuild.engine.predict import Estimate, remaining_path
from llmbuild.engine.task import AllFiles, Files, Task
from llmbuild.engine.tree import Tree
from llmbuild.plan.planner import Plan, Verdict
from llmbuild.sources.kinds import known_kind


@dataclass(frozen=True, slots=True)
class TaskEstimate:
    """What one task will take: seconds, peak of memory, bytes of output, bytes to download (None when nobody knows
    before), and how many earlier runs say so."""

    wall_s: float
    peak_rss: int
    output_size: int
    download: int | None
    runs: int


@dataclass(frozen=True, slots=True)
class Total:
    """What a set of tasks will take: seconds with the given number of jobs, the memory of those that run at the same
    time, new bytes on the disk, and bytes to download as far as they are known."""

    wall_s: float = 0.0
    peak_rss: int = 0
    disk: int = 0
    download: int = 0


@dataclass(frozen=True, slots=True)
class PlanEstimate:
    """`certain` is for the tasks that have to run, `most` for those and all that may follow; `tasks` has both by label.

    `fewest` and `most_runs` are the numbers of earlier runs behind the estimates of tasks of known kinds, `guessed` the
    kinds that never ran, `unknown` the tasks whose download has an unknown size.
    """

    tasks: Mapping[str, TaskEstimate]
    certain: Total
    most: Total
    fewest: int
    most_runs: int
    guessed: tuple[str, ...]
    unknown: tuple[str, ...]


def estimate(
    plan: Plan,
    predict: Callable[[Task, int | None], Estimate],
    tree: Callable[[Digest], Tree | None],
    have: Callable[[Digest], bool],
    jobs: int,
) -> PlanEstimate | None:
    """The estimate for a plan, None when nothing has to run.

    `predict` gives the numbers of earlier runs, `tree` an output of a cached task, and `have` says whether a file with
    this SHA-256 is in the store, so that it need not be downloaded.
    """
    busy = [verdict for verdict in plan.verdicts if verdict.state in ("run", "maybe")]
    if not busy:
        return None
    known: dict[str, TaskEstimate] = {}
    verdicts = {verdict.task.label: verdict for verdict in plan.verdicts}
    for verdict in busy:
        task = verdict.task
        found = predict(task, _input_size(task, verdicts, known, tree))
        download = _download(task, found, have)
        output = found.output_size or (_promised(task) or 0)
        known[task.label] = TaskEstimate(found.wall_s, found.peak_rss, output, download, found.runs)
    runs = [one.runs for one in known.values() if one.runs]
    certain = [verdict.task for verdict in busy if verdict.state == "run"]
    return PlanEstimate(
        tasks=known,
        certain=_total(certain, known, jobs),
        most=_total([verdict.task for verdict in busy], known, jobs),
        fewest=min(runs, default=0),
        most_runs=max(runs, default=0),
        guessed=tuple(dict.fromkeys(verdict.task.kind for verdict in busy if not known[verdict.task.label].runs)),
        unknown=tuple(label for label, one in known.items() if one.download is None),
    )


def _input_size(
    task: Task,
    verdicts: Mapping[str, Verdict],
    known: Mapping[str, TaskEstimate],
    tree: Callable[[Digest], Tree | None],
) -> int | None:
    """The bytes that a task will read, None while that cannot be told."""
    size = 0
    for ref in task.inputs.values():
        if not isinstance(ref.select, AllFiles | Files):
            # A handful of fields weighs nothing beside what else a task reads.
            continue
        output = verdicts[ref.task].output
        found = None if output is None else tree(output)
        if found is not None:
            chosen = found.select(ref.select.patterns) if isinstance(ref.select, Files) else found
            size += sum(entry.size for entry in chosen.files)
        elif ref.task in known and known[ref.task].output_size:
            size += known[ref.task].output_size
        else:
            return None
    return size


def _files(task: Task) -> Mapping[str, Mapping[str, object]] | None:
    """The promised files of a source that is downloaded; None for any other task or where nothing is promised."""
    files = task.hints.get("files")
    return files if isinstance(files, Mapping) and files else None  # type: ignore[return-value]


def _promised(task: Task) -> int | None:
    files = _files(task)
    sizes = [entry.get("size") for entry in files.values()] if files is not None else [None]
    return sum(size for size in sizes if isinstance(size, int)) if all(isinstance(one, int) for one in sizes) else None


def _download(task: Task, found: Estimate, have: Callable[[Digest], bool]) -> int | None:
    source = task.params.get("source")
    kind = known_kind(source.get("kind")) if isinstance(source, Mapping) else None
    if task.inputs or kind is None or not kind.remote:
        return 0
    files = _files(task)
    if files is None or _promised(task) is None:
        return found.output_size if found.runs else None
    # The type of a size was looked at above.
    return sum(
        int(str(entry["size"]))
        for entry in files.values()
        if (digest := known_digest(entry.get("sha256"))) is None or not have(digest)
    )


def _total(tasks: Sequence[Task], known: Mapping[str, TaskEstimate], jobs: int) -> Total:
    wall, peak = simulate(tasks, known, jobs)
    each = [known[task.label] for task in tasks]
    return Total(wall, peak, sum(one.output_size for one in each), sum(one.download or 0 for one in each))


def simulate(tasks: Sequence[Task], known: Mapping[str, TaskEstimate], jobs: int) -> tuple[float, int]:
    """The seconds that the tasks take when at most `jobs` run at a time, those on the longest remaining path first, as
    the scheduler does; and the largest sum of peaks of memory of tasks that then run together."""
    labels = {task.label for task in tasks}
    urgent = remaining_path(tasks, {label: known[label].wall_s for label in labels})
    waiting = {task.label: {ref.task for ref in task.inputs.values()} & labels for task in tasks}
    dependents: dict[str, list[str]] = {label: [] for label in labels}
    for label, needs in waiting.items():
        for need in needs:
            dependents[need].append(label)
    ready = [(-urgent[label], label) for label, needs in waiting.items() if not needs]
    heapq.heapify(ready)
    running: list[tuple[float, str]] = []
    now, memory, peak = 0.0, 0, 0
    while ready or running:
        while ready and len(running) < jobs:
            label = heapq.heappop(ready)[1]
            heapq.heappush(running, (now + known[label].wall_s, label))
            memory += known[label].peak_rss
        peak = max(peak, memory)
        now, label = heapq.heappop(running)
        memory -= known[label].peak_rss
        for dependent in dependents[label]:
            waiting[dependent].discard(label)
            if not waiting[dependent]:
                heapq.heappush(ready, (-urgent[dependent], dependent))
    return now, peak
