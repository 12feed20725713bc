"""Predicting what a task will take from what tasks like it took.

Pure: all that is known of earlier runs is passed in.  The best witness is the same task of the same project, then tasks of the
kind with inputs of about the same size, then all of the kind, scaled by the size of their inputs.  A kind that never ran has
the numbers that it declares.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from llmbuild.engine.kind import TaskKind
from llmbuild.engine.labels import split_label
from llmbuild.engine.task import Task

if TYPE_CHECKING:
    from llmbuild.engine.index import RunSummary

_RECENT = 5
"""How many of the latest fitting runs count: a task changes with its code, and old runs measure old code."""

_COMPARABLE = 1.5
"""Inputs are of about the same size when neither is more than this many times the other."""

_SMALL = 1 << 20
"""Below this many bytes of input, time and memory do not depend on the size: such inputs all count as the same size."""


Witness: TypeAlias = Literal["task", "model", "others"]
"""What an estimate's runs were of: the task itself, other tasks of its model, or those of other models."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a task will take: seconds of wall clock, peak resident set and output in bytes, the number of earlier runs behind it
    (0: nothing but the kind's declaration, with an output of unknown size 0), and what those were runs of."""

    wall_s: float
    peak_rss: int
    output_size: int
    runs: int
    of: Witness = "task"


def predict(
    kind: TaskKind,
    runs: Sequence[RunSummary],
    *,
    label: str = "",
    project: str = "",
    model: str = "",
    input_size: int | None = None,
) -> Estimate:
    """The estimate for a task of `kind` from that kind's earlier `runs` (oldest first, as TraceIndex.runs gives them).

    `input_size` is the bytes of the task's inputs, None while it is not known; `model` is empty for a task that serves all
    models, which is the same in every project.  Time and output are the median of the fitting runs, memory their largest.
    """

    def witness(run: RunSummary) -> Witness:
        if label and run.label == label and (not model or run.project == project):
            return "task"
        return "model" if model and run.project == project and _model_of(run.label) == model else "others"

    same = [run for run in runs if label and (run.label, run.project) == (label, project)]
    fitting = [run for run in same if input_size is None or _comparable(run.input_size, input_size)]
    if not fitting and input_size is not None:
        fitting = [run for run in runs if _comparable(run.input_size, input_size)]
    if not runs:
        return Estimate(kind.typical_seconds, kind.typical_memory, 0, 0)
    heard = (fitting or runs)[-_RECENT:]
    of = max(map(witness, heard), key=_FARTHER.index)
    return _summary(heard, of, None if fitting else input_size)


_FARTHER: Sequence[Witness] = ("task", "model", "others")


def _model_of(label: str) -> str:
    """The model in a task's label: `lower[model, scheme, platform]`."""
    return next(iter(split_label(label)[1]), "")


def _comparable(one: int, other: int) -> bool:
    small, large = sorted((max(one, _SMALL), max(other, _SMALL)))
    return large <= small * _COMPARABLE


def _summary(runs: Sequence[RunSummary], of: Witness, input_size: int | None) -> Estimate:
    """The estimate from some runs, each scaled to `input_size` when it is given."""
    factors = [1.0 if input_size is None else max(input_size, _SMALL) / max(run.input_size, _SMALL) for run in runs]
    return Estimate(
        wall_s=_median(run.wall_s * factor for run, factor in zip(runs, factors, strict=True)),
        # A process has a size of its own, so that memory shrinks by less than the input does.
        peak_rss=max(round(run.peak_rss * max(1.0, factor)) for run, factor in zip(runs, factors, strict=True)),
        output_size=round(_median(run.output_size * factor for run, factor in zip(runs, factors, strict=True))),
        runs=len(runs),
        of=of,
    )


def _median(values: Iterable[float]) -> float:
    # The statistics module costs more to import than a null build may take.
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


class Predictor:
    """Predictions for the tasks of one project; `runs` and `kind` are called once for each kind, when first needed."""

    def __init__(
        self, runs: Callable[[str], Sequence[RunSummary]], kind: Callable[[str], TaskKind], project: str = ""
    ) -> None:
        self._runs, self._kind, self._project = runs, kind, project
        self._known: dict[str, tuple[TaskKind, Sequence[RunSummary]]] = {}

    def __call__(self, task: Task, input_size: int | None = None) -> Estimate:
        """The estimate for a task.  Raises what `runs` and `kind` raise."""
        if task.kind not in self._known:
            self._known[task.kind] = self._kind(task.kind), self._runs(task.kind)
        kind, runs = self._known[task.kind]
        return predict(kind, runs, label=task.label, project=self._project, model=task.model, input_size=input_size)


def remaining_path(tasks: Sequence[Task], seconds: Mapping[str, float]) -> dict[str, float]:
    """For each label, the seconds of the longest chain of tasks that begins with it: what the build cannot beat.

    `tasks` name each other as inputs without circles; a task without an entry in `seconds` counts as taking no time.
    """
    dependents: dict[str, list[str]] = {task.label: [] for task in tasks}
    waiting = {task.label: 0 for task in tasks}
    inputs = {task.label: {ref.task for ref in task.inputs.values()} & dependents.keys() for task in tasks}
    for label, upstream in inputs.items():
        for one in upstream:
            dependents[one].append(label)
            waiting[one] += 1
    result: dict[str, float] = {}
    ends = [label for label, count in waiting.items() if count == 0]
    while ends:
        label = ends.pop()
        result[label] = seconds.get(label, 0.0) + max((result[one] for one in dependents[label]), default=0.0)
        for one in inputs[label]:
            waiting[one] -= 1
            if waiting[one] == 0:
                ends.append(one)
    return result
