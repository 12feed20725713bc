"""What a plan will take: time, memory, bytes to download and new disk, from earlier runs of tasks like its own.  Pure.

Sizes of sources come from the lock or the source itself, and are unknown where neither has them: the sizes of other models
do not predict them.  Where no task of a kind ever ran, time and memory are what the kind declares, and `runs` is 0; whoever
shows them marks them so.
"""

from __future__ import annotations

import dataclasses
import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from llmbuild.canonical import Digest, known_digest
from llmbuild.engine.pending import Waiting, turns
from llmbuild.engine.predict import Estimate, Witness, remaining_path
from llmbuild.engine.task import AllFiles, Files, Task
from llmbuild.engine.tree import Tree
from llmbuild.plan.planner import Plan, Verdict
from llmbuild.sources.kinds import known_kind

_SMALL = 1 << 20
"""A download of fewer bytes takes as long as one of this many."""


@dataclass(frozen=True, slots=True)
class TaskEstimate:
    """What one task will take: seconds, peak of memory, bytes of output and bytes to download (None when they are unknown
    before), the number of earlier runs behind the estimate, and what those were runs of."""

    wall_s: float
    peak_rss: int
    output_size: int | None
    download: int | None
    runs: int
    of: Witness = "task"


@dataclass(frozen=True, slots=True)
class Total:
    """What a set of tasks will take: seconds with the given number of jobs, the memory of those that run at the same
    time, new bytes on the disk and bytes to download as far as they are known, and for how many tasks they are unknown."""

    wall_s: float = 0.0
    peak_rss: int = 0
    disk: int = 0
    download: int = 0
    unknown_outputs: int = 0
    unknown_downloads: int = 0


@dataclass(frozen=True, slots=True)
class PlanEstimate:
    """`certain` is for the tasks that have to run, `most` for those and all that may follow; `tasks` has both by label.

    `fewest` and `most_runs` are the numbers of earlier runs behind the estimates of tasks that ran before, `others` the
    same by kind for those that are made from runs of something else, `guessed` the kinds that never ran, and `unknown`
    the tasks whose download has an unknown size.
    """

    tasks: Mapping[str, TaskEstimate]
    certain: Total
    most: Total
    fewest: int
    most_runs: int
    guessed: tuple[str, ...]
    unknown: tuple[str, ...]
    others: Mapping[str, Others] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Others:
    """How many runs an estimate of a kind is made from that are not runs of the task, and of what they were."""

    runs: int
    of: Witness


def estimate(
    plan: Plan,
    predict: Callable[[Task, int | None], Estimate],
    tree: Callable[[Digest], Tree | None],
    have: Callable[[Digest], bool],
    ask: Callable[[Task], int | None],
    jobs: int,
    memory: int | None = None,
) -> PlanEstimate | None:
    """The estimate for a plan, None when nothing has to run.

    `predict` returns the numbers of earlier runs, `tree` an output of a cached task, `have` whether a file with this
    SHA-256 is in the store, so that it need not be downloaded, and `ask` the size that a source reports where the lock does
    not have it.  `jobs` and `memory` (bytes) are the limits of the scheduler.
    """
    busy = [verdict for verdict in plan.verdicts if verdict.state in ("run", "maybe")]
    if not busy:
        return None
    known: dict[str, TaskEstimate] = {}
    verdicts = {verdict.task.label: verdict for verdict in plan.verdicts}
    for verdict in busy:
        task = verdict.task
        found = predict(task, _input_size(task, verdicts, known, tree))
        output = found.output_size if found.runs else None
        download: int | None = 0
        if _is_source(task):
            output, download = _source_sizes(task, have, ask)
            found = _scaled(found, output)
        known[task.label] = TaskEstimate(found.wall_s, found.peak_rss, output, download, found.runs, found.of)
    own = [one.runs for one in known.values() if one.runs and one.of == "task"]
    certain = [verdict.task for verdict in busy if verdict.state == "run"]
    return PlanEstimate(
        tasks=known,
        certain=_total(certain, known, jobs, memory),
        most=_total([verdict.task for verdict in busy], known, jobs, memory),
        fewest=min(own, default=0),
        most_runs=max(own, default=0),
        guessed=tuple(dict.fromkeys(verdict.task.kind for verdict in busy if not known[verdict.task.label].runs)),
        unknown=tuple(label for label, one in known.items() if one.download is None),
        others=_others(busy, known),
    )


def _others(busy: Sequence[Verdict], known: Mapping[str, TaskEstimate]) -> Mapping[str, Others]:
    """By kind, the fewest runs of something else that an estimate is made from, and what is farthest from the task."""
    found: dict[str, Others] = {}
    for verdict in busy:
        one, kind = known[verdict.task.label], verdict.task.kind
        if one.runs and one.of != "task":
            before = found.get(kind, Others(one.runs, one.of))
            found[kind] = Others(min(before.runs, one.runs), "others" if "others" in (before.of, one.of) else one.of)
    return found


def _scaled(found: Estimate, size: int | None) -> Estimate:
    """The estimate for a source of a known size, where it is made from the runs of others."""
    if found.of == "task" or size is None or not found.output_size:
        return found
    factor = max(size, _SMALL) / max(found.output_size, _SMALL)
    return dataclasses.replace(found, wall_s=found.wall_s * factor)


def _input_size(
    task: Task,
    verdicts: Mapping[str, Verdict],
    known: Mapping[str, TaskEstimate],
    tree: Callable[[Digest], Tree | None],
) -> int | None:
    """The bytes that a task will read, None while they are unknown."""
    size = 0
    for ref in task.inputs.values():
        if not isinstance(ref.select, AllFiles | Files):
            # The size of a few fields is negligible beside the task's other inputs.
            continue
        output = verdicts[ref.task].output
        found = None if output is None else tree(output)
        if found is not None:
            chosen = found.select(ref.select.patterns) if isinstance(ref.select, Files) else found
            size += sum(entry.size for entry in chosen.files)
        elif ref.task in known and (promised := known[ref.task].output_size):
            size += promised
        else:
            return None
    return size


def _is_source(task: Task) -> bool:
    """Whether a task gets bytes from outside the build."""
    return not task.inputs and isinstance(task.params.get("source"), Mapping)


def _source_sizes(
    task: Task, have: Callable[[Digest], bool], ask: Callable[[Task], int | None]
) -> tuple[int | None, int | None]:
    """The bytes of a source's output, and those that must be downloaded for it; None where they are unknown."""
    source = task.params["source"]
    assert isinstance(source, Mapping)
    kind = known_kind(source.get("kind"))
    if kind is None or not kind.remote:
        return ask(task), 0
    listed = task.hints.get("files")
    files = [one for one in listed.values() if isinstance(one, Mapping)] if isinstance(listed, Mapping) else []
    sizes = [size for one in files if isinstance(size := one.get("size"), int)]
    output = sum(sizes) if files and len(sizes) == len(files) else None
    missing = [one for one in files if (digest := known_digest(one.get("sha256"))) is None or not have(digest)]
    single = kind.single_file(source)
    if (files and not missing) or (single and all(map(have, single.values()))):
        return output, 0
    if kind.archived(source):
        # The lock pins the files in an archive, and not the size of the archive.
        return output, ask(task)
    if output is not None:
        return output, sum(size for one in missing if isinstance(size := one.get("size"), int))
    size = ask(task)
    return size, size


def _total(tasks: Sequence[Task], known: Mapping[str, TaskEstimate], jobs: int, memory: int | None) -> Total:
    schedule = simulate(tasks, known, jobs, memory)
    each = [known[task.label] for task in tasks]
    return Total(
        schedule.wall_s,
        schedule.peak_rss,
        sum(one.output_size or 0 for one in each),
        sum(one.download or 0 for one in each),
        sum(one.output_size is None for one in each),
        sum(one.download is None for one in each),
    )


@dataclass(frozen=True, slots=True)
class Schedule:
    """When each task starts, in seconds from the beginning, how long all take, and the largest sum of the peaks of
    memory of tasks that run together."""

    starts: Mapping[str, float]
    wall_s: float
    peak_rss: int


def simulate(
    tasks: Sequence[Task], known: Mapping[str, TaskEstimate], jobs: int, memory: int | None = None
) -> Schedule:
    """The tasks as the scheduler runs them: at most `jobs` at a time, those on the longest remaining path first, and none
    whose memory does not fit into `memory` (bytes) beside the running ones, unless it would run alone."""
    labels = {task.label for task in tasks}
    order = turns(tasks)
    urgent = remaining_path(tasks, {label: known[label].wall_s for label in labels})
    needs = {task.label: {ref.task for ref in task.inputs.values()} & labels for task in tasks}
    dependents: dict[str, list[str]] = {label: [] for label in order}
    queue = Waiting()
    for label, upstream in needs.items():
        for one in upstream:
            dependents[one].append(label)
        if not upstream:
            queue.add(label, urgent[label], order[label])
    running: list[tuple[float, int, str]] = []
    starts: dict[str, float] = {}
    now, taken, peak = 0.0, 0, 0

    def fits(label: str) -> bool:
        return not running or memory is None or taken + known[label].peak_rss <= memory

    while True:
        while len(running) < jobs and (next_one := queue.take(fits)) is not None:
            starts[next_one] = now
            heapq.heappush(running, (now + known[next_one].wall_s, order[next_one], next_one))
            taken += known[next_one].peak_rss
        if not running:
            return Schedule(starts, now, peak)
        peak = max(peak, taken)
        now, _, ended = heapq.heappop(running)
        taken -= known[ended].peak_rss
        for dependent in dependents[ended]:
            needs[dependent].discard(ended)
            if not needs[dependent]:
                queue.add(dependent, urgent[dependent], order[dependent])
