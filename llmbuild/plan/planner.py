"""The plan: for each task whether it is cached, has to run and why, or may follow from one that runs.  Pure.

The planner walks the tasks in order.  Where everything upstream is cached, the inputs are known, so the action and its
trace are too.  Downstream of a task that runs the inputs are unknown until then: such a task has reasons of its own
(a changed parameter or tool), or it only *may* run, because early cutoff can still prune it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal, Protocol, TypeAlias

from llmbuild.canonical import Digest, Json
from llmbuild.engine.action import Action
from llmbuild.engine.task import AllFiles, Files, InputRef, JsonFields, Task
from llmbuild.engine.tree import Tree
from llmbuild.errors import LlmbuildError
from llmbuild.plan.reasons import (
    Blocked,
    Cascade,
    Contents,
    Evicted,
    Forced,
    NeverBuilt,
    ParameterChanged,
    Reason,
    compare,
    parameter_reasons,
    tool_reasons,
)

State: TypeAlias = Literal["cached", "restore", "run", "maybe", "blocked"]
"""`restore`: built, and only its files in the output directory must be restored.  `blocked`: it must or may run and cannot,
because what it needs is missing and what it would be built with is unknown, or because a checkpoint is refused."""


_NOTHING = Tree(())


@dataclass(frozen=True, slots=True)
class Built:
    """A trace whose output is in the store; `output` is the digest of its tree, `away` has the files of which the store has
    only a promise that no longer holds."""

    output: Digest
    away: Tree = _NOTHING


@dataclass(frozen=True, slots=True)
class Lost:
    """A trace whose output is no longer whole in the store, and why."""

    reason: Reason


class Knowledge(Contents, Protocol):
    """The planner's queries about the past.  The engine's store implements them in a build, a dictionary in a test."""

    def bind(self, task: Task, outputs: Mapping[str, Digest]) -> Action | None:
        """The task with its inputs bound to the outputs (by label) of its upstream tasks; None when a part is lost."""
        ...

    def recall(self, action: Digest) -> Built | Lost | None:
        """The recorded result of this action; None when it never ran."""
        ...

    def previous(self, label: str) -> Mapping[str, Json] | None:
        """The key (`Action.key()`) of the task's last run in this project.

        None when it never ran; empty when it ran, but the record of its key is no longer there.
        """
        ...

    def installed(self, task: Task, output: Digest) -> tuple[Reason, ...]:
        """What is wrong with the task's files in the output directory; empty when nothing is."""
        ...


@dataclass(frozen=True, slots=True)
class Verdict:
    """The decision on one task.  `action` is None where the inputs are not known yet, `output` unless it is cached."""

    task: Task
    state: State
    reasons: tuple[Reason, ...] = ()
    action: Action | None = None
    output: Digest | None = None
    away: Tree = _NOTHING

    @property
    def as_locked(self) -> Mapping[str, str]:
        """The tools of its key that are missing here, by their names in the lock file."""
        lack = self.task.lack
        return {} if lack is None or lack.locked is None else {lack.tool: lack.locked}

    @property
    def unbuilt(self) -> bool:
        """Whether its result is not there, or may not be the right one: it has to run, or may have to, here or elsewhere."""
        return self.state in ("run", "maybe", "blocked")

    @property
    def impossible(self) -> bool:
        """Whether it must or may run, and cannot run here."""
        return self.task.lack is not None and self.unbuilt

    @property
    def root(self) -> str:
        """The label of the first cause: this task's, or that of the task it follows."""
        first = self.reasons[0] if self.reasons else None
        return first.root if isinstance(first, Cascade) else self.task.label


@dataclass(frozen=True, slots=True)
class Cause:
    """A root cause: reasons that some tasks share, the labels of those tasks, and of the tasks that may follow them.

    `new` is true where the tasks were never built, or are blocked: nothing changed.
    """

    reasons: tuple[Reason, ...]
    tasks: tuple[str, ...]
    follow: tuple[str, ...]

    @property
    def new(self) -> bool:
        return all(isinstance(reason, (NeverBuilt, Blocked)) for reason in self.reasons)


@dataclass(frozen=True, slots=True)
class Plan:
    """The verdict on every selected task, in graph order."""

    project: str
    verdicts: tuple[Verdict, ...]

    def only_stale(self) -> Plan:
        """The same without what is up to date."""
        return replace(self, verdicts=tuple(verdict for verdict in self.verdicts if verdict.state != "cached"))

    def count(self, state: State) -> int:
        return sum(verdict.state == state for verdict in self.verdicts)

    @property
    def stale(self) -> bool:
        """Whether a build would do anything."""
        return any(verdict.state != "cached" for verdict in self.verdicts)

    def impact(self) -> Mapping[str, int]:
        """For each root cause, how many tasks may follow from it."""
        return Counter(verdict.root for verdict in self.verdicts if verdict.state == "maybe")

    def causes(self) -> tuple[Cause, ...]:
        """The root causes apart from what follows: tasks with equal reasons of their own have one cause."""
        roots: dict[tuple[Reason, ...], list[str]] = {}
        follow: dict[str, list[str]] = {}
        for verdict in self.verdicts:
            if verdict.state == "maybe":
                follow.setdefault(verdict.root, []).append(verdict.task.label)
            elif verdict.state != "cached":
                roots.setdefault(verdict.reasons, []).append(verdict.task.label)
        return tuple(
            Cause(reasons, tuple(labels), tuple(one for label in labels for one in follow.get(label, ())))
            for reasons, labels in roots.items()
        )


def make_plan(
    project: str,
    tasks: Sequence[Task],
    knowledge: Knowledge,
    *,
    force: frozenset[str] = frozenset(),
    because: Mapping[str, tuple[Reason, ...]] = MappingProxyType({}),
) -> Plan:
    """The plan for these tasks, which must be closed upstream and in graph order; `force` has the labels to run again.

    `because` has the reasons of those that the user did not force: their cached results are unusable.
    """
    verdicts: dict[str, Verdict] = {}
    for task in tasks:
        if task.lack is not None and not task.lack.keyed:
            reasons = tuple(Blocked(error.what, error.fix) for error in task.missing)
            verdicts[task.label] = Verdict(task, "blocked", reasons)
            continue
        again = because.get(task.label) or ((Forced(),) if task.label in force else ())
        verdicts[task.label] = _judge(task, verdicts, knowledge, again)
    return Plan(project, tuple(_with_sources(verdicts)))


def _with_sources(verdicts: Mapping[str, Verdict]) -> Iterator[Verdict]:
    """The verdicts, where tasks run again whose missing bytes another task needs, and tasks are blocked that cannot run
    because their source is gone or refused, with all that needs what is refused."""
    needed: set[str] = set()
    for verdict in verdicts.values():
        if verdict.state == "run":
            needed.update(ref.task for ref in verdict.task.inputs.values() if reads(ref, verdicts[ref.task].away))
    refused: dict[str, tuple[Reason, ...]] = {}
    for label, verdict in verdicts.items():
        lack = verdict.task.lack
        runs = verdict.state == "run" or label in needed
        of_input = next((refused[ref.task] for ref in verdict.task.inputs.values() if ref.task in refused), ())
        if verdict.unbuilt and lack is not None and lack.refused:
            refused[label] = tuple(Blocked(_placed(error), error.fix) for error in lack.errors)
        elif verdict.unbuilt and of_input:
            refused[label] = of_input
        if label in refused:
            yield replace(verdict, state="blocked", reasons=refused[label])
        elif runs and lack is not None and lack.source:
            reasons = tuple(Blocked(error.what, error.fix) for error in lack.errors)
            yield replace(verdict, state="blocked", reasons=reasons)
        else:
            yield replace(verdict, state="run", reasons=(Evicted(),)) if label in needed else verdict


def _placed(error: LlmbuildError) -> str:
    return error.what if error.where is None else f"{error.where}: {error.what}"


def reads(ref: InputRef, away: Tree) -> bool:
    """Whether an input reads any of these files of the output that it refers to."""
    match ref.select:
        case AllFiles():
            return bool(away.files)
        case Files(patterns):
            return bool(away.files) and bool(away.select(patterns).files)
        case JsonFields(file, _):
            return any(entry.path == file for entry in away.files)


def _judge(task: Task, verdicts: Mapping[str, Verdict], knowledge: Knowledge, again: tuple[Reason, ...]) -> Verdict:
    upstream = [verdicts[ref.task] for ref in task.inputs.values()]
    outputs = {verdict.task.label: verdict.output for verdict in upstream if verdict.output is not None}
    if len(outputs) < len({verdict.task.label for verdict in upstream}):
        return _judge_unbound(task, [verdict for verdict in upstream if verdict.output is None], knowledge, again)
    action = knowledge.bind(task, outputs)
    if action is None:
        return Verdict(task, "run", (Evicted(),))
    if again:
        return Verdict(task, "run", again, action)
    known = knowledge.recall(action.digest)
    if isinstance(known, Built):
        wrong = knowledge.installed(task, known.output)
        return Verdict(task, "restore" if wrong else "cached", wrong, action, known.output, known.away)
    return Verdict(task, "run", why(task, action, known, knowledge), action)


def why(task: Task, action: Action, known: Built | Lost | None, knowledge: Knowledge) -> tuple[Reason, ...]:
    """Why an action with this recorded result runs; without a trace, the difference to the task's last run; never empty."""
    if isinstance(known, Lost):
        return (known.reason,)
    if known is not None:
        # It was whole when it was looked up; a task that reads it found a part missing since.
        return (Evicted(),)
    previous = knowledge.previous(task.label)
    if previous is None:
        return (NeverBuilt(),)
    if not previous:
        return (Evicted(),)
    labels = {name: ref.task for name, ref in task.inputs.items()}
    # The key is that of the last run, but there is no trace: the trace itself was lost with the store's index.
    return compare(previous, action, labels, knowledge) or (Evicted(),)


def _judge_unbound(task: Task, running: Sequence[Verdict], knowledge: Knowledge, again: tuple[Reason, ...]) -> Verdict:
    if again:
        return Verdict(task, "run", again)
    previous = knowledge.previous(task.label)
    if previous is None:
        return Verdict(task, "run", (NeverBuilt(),))
    own = own_reasons(task, previous, knowledge) if previous else ()
    if own:
        return Verdict(task, "run", own)
    return Verdict(task, "maybe", (Cascade(running[0].root),))


def own_reasons(task: Task, previous: Mapping[str, Json], contents: Contents) -> tuple[Reason, ...]:
    """What differs from an earlier key whatever the inputs turn out to be: parameters, tools, and the kind's version."""
    params, tools = previous.get("params"), previous.get("tools")
    # Which tool an input will choose is not known yet.
    chosen = None if task.choice is None else task.choice.tool
    known = {name: value for name, value in tools.items() if name != chosen} if isinstance(tools, Mapping) else {}
    reasons = (
        *parameter_reasons(params if isinstance(params, Mapping) else {}, task.params),
        *tool_reasons(known, task.tools, contents),
    )
    if previous.get("version") != task.version:
        reasons = (*reasons, ParameterChanged("task version", previous.get("version"), task.version))
    return reasons
