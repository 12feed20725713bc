"""Selecting tasks: by label, pattern or kind, with all they need."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Sequence

from llmbuild.engine.labels import split_label
from llmbuild.engine.task import Task
from llmbuild.errors import UsageError, did_you_mean
from llmbuild.plan.measuring import measures
from llmbuild.printable import either

_LIST = "`llmbuild plan` lists every task"


def select(tasks: Sequence[Task], names: Iterable[str] = ()) -> tuple[Task, ...]:
    """The named tasks and everything upstream of them, in the order of `tasks`; without names all but those that only packages
    need.

    What is installed beside a result is left out where the task of the result is: a library's record alone would describe
    a library that is missing, or another one.
    """
    names = tuple(names)
    if not names:
        return tuple(task for task in tasks if not task.package)
    chosen = closure(tasks, (task.label for task in asked(tasks, names)))
    results = {one.dest for task in chosen for one in task.installs}
    return tuple(
        task
        if all(one.result in results for one in task.installs)
        else dataclasses.replace(task, installs=tuple(one for one in task.installs if one.result in results))
        for task in chosen
    )


def asked(tasks: Sequence[Task], names: Iterable[str]) -> tuple[Task, ...]:
    """The named tasks: by label ("quantize[smollm2, q4f16_1]"), label with the wildcards * and ?, or kind.

    Raises UsageError with the nearest labels and kinds for a name that matches nothing.
    """
    found = asked_labels([task.label for task in tasks], names)
    return tuple(task for task in tasks if task.label in found)


def asked_labels(labels: Sequence[str], names: Iterable[str]) -> frozenset[str]:
    """The labels of these that the names match.  Raises what `asked` does."""
    return frozenset(label for name in names for label in _named(name, labels))


def closure(tasks: Sequence[Task], labels: Iterable[str]) -> tuple[Task, ...]:
    """The labelled tasks and everything upstream, in the order of `tasks`."""
    by_label = {task.label: task for task in tasks}
    wanted: set[str] = set()
    pending = list(labels)
    while pending:
        label = pending.pop()
        if label not in wanted:
            wanted.add(label)
            pending += [ref.task for ref in by_label[label].inputs.values()]
    return tuple(task for task in tasks if task.label in wanted)


def find(tasks: Sequence[Task], name: str) -> Task:
    """The one task of this name; raises UsageError when none or several match."""
    found = asked(tasks, (name,))
    if len(found) > 1:
        raise UsageError(
            f"'{name}' names {len(found)} tasks",
            why="it matches " + ", ".join(task.label for task in found[:4]) + (", …" if len(found) > 4 else ""),
            fix="give one label in full",
        )
    return found[0]


def _named(name: str, labels: Sequence[str]) -> list[str]:
    """The labels that a name matches.  Those of tasks that measure are matched by names that match no others: who builds all
    of a model, or every library, does not mean them."""
    usual = [label for label in labels if not measures(label)]
    others = [label for label in labels if measures(label)]
    found = _matching(name, usual) or _matching(name, others)
    if not found:
        kinds = {split_label(label)[0] for label in labels}
        raise UsageError(
            f"no task matches '{name}'",
            fix=_with_that_part(name, usual)
            or did_you_mean(name, [*usual, *sorted(kinds)])
            or did_you_mean(name, others)
            or f"{_LIST}; quote labels in the shell: 'quantize[MODEL, SCHEME]'",
        )
    return found


def _matching(name: str, labels: Sequence[str]) -> list[str]:
    # Brackets are part of labels, so this is not fnmatch.
    pattern = re.compile("".join({"*": ".*", "?": "."}.get(mark, re.escape(mark)) for mark in _squeeze(name)))
    return [label for label in labels if split_label(label)[0] == name or pattern.fullmatch(_squeeze(label))]


def _with_that_part(name: str, labels: Sequence[str]) -> str | None:
    """What to write for the tasks that are of a thing, where only its name was given: a model's, a platform's, a package's."""
    found = [label for label in labels if name in split_label(label)[1]]
    if not found:
        return None
    few = "did you mean " + either(f"'{label}'" for label in found) + "?"
    return few if len(found) <= 3 else f"'*{name}*' are the {len(found)} tasks that have this in their labels"


def _squeeze(label: str) -> str:
    return label.replace(" ", "")
