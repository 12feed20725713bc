"""Which tasks a command line asks for: by label, pattern, kind, model, platform or scheme, with all they depend on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from llmbuild.engine.task import Task
from llmbuild.errors import UsageError, did_you_mean


def select(
    tasks: Sequence[Task],
    *,
    names: Iterable[str] = (),
    models: Iterable[str] = (),
    platforms: Iterable[str] = (),
    schemes: Iterable[str] = (),
) -> tuple[Task, ...]:
    """The asked tasks and everything upstream of them, in the order of `tasks`; all of them when nothing is asked.

    `names` are labels ("quantize[smollm2, q4f16_1]"), labels with the wildcards * and ?, or kinds ("link").  Models,
    platforms and schemes narrow the matrix: a cell that matches brings its library and its weight directory.  Raises
    UsageError with the nearest known names.
    """
    names, models, platforms, schemes = tuple(names), tuple(models), tuple(platforms), tuple(schemes)
    if not (names or models or platforms or schemes):
        return tuple(tasks)
    for what, asked, known in (
        ("model", models, {task.model for task in tasks}),
        ("platform", platforms, {task.platform for task in tasks}),
        ("quantization", schemes, {task.scheme for task in tasks}),
    ):
        _refuse_unknown(what, asked, known - {""})
    cells = _cells(tasks, models, platforms, schemes)
    if not cells:
        raise UsageError(
            "no library of the matrix has this model, quantization and platform together",
            fix="`llmbuild plan` lists every task",
        )
    allowed = [task for task in tasks if _belongs(task, cells)]
    chosen = [task for name in names for task in _named(name, allowed, tasks)] if names else allowed
    return closure(tasks, (task.label for task in chosen))


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
    """The one task of this label (spaces do not matter); raises UsageError with the nearest labels."""
    found = [task for task in tasks if _squeeze(task.label) == _squeeze(name)]
    if not found:
        found = _named(name, tasks, tasks)
    if len(found) > 1:
        raise UsageError(
            f"'{name}' names {len(found)} tasks",
            why="it matches " + ", ".join(task.label for task in found[:4]) + (", …" if len(found) > 4 else ""),
            fix="give one label in full",
        )
    return found[0]


def _refuse_unknown(what: str, asked: Iterable[str], known: Iterable[str]) -> None:
    known = sorted(known)
    for name in asked:
        if name not in known:
            listed = f"the manifest has {', '.join(known)}" if known else "the manifest has none"
            raise UsageError(f"no {what} is named '{name}'", why=listed, fix=did_you_mean(name, known))


def _cells(
    tasks: Sequence[Task], models: Sequence[str], platforms: Sequence[str], schemes: Sequence[str]
) -> set[tuple[str, str, str]]:
    return {
        (task.model, task.scheme, task.platform)
        for task in tasks
        if task.platform
        and (not models or task.model in models)
        and (not platforms or task.platform in platforms)
        and (not schemes or task.scheme in schemes)
    }


def _belongs(task: Task, cells: set[tuple[str, str, str]]) -> bool:
    """Whether the task is in a cell, or shared by one ("" in a task stands for any)."""
    if task.platform:
        return (task.model, task.scheme, task.platform) in cells
    return any(task.model == model and task.scheme in ("", scheme) for model, scheme, _ in cells)


def _named(name: str, allowed: Sequence[Task], tasks: Sequence[Task]) -> list[Task]:
    pattern = re.compile(
        "".join({"*": ".*", "?": "."}.get(mark, re.escape(mark)) for mark in _squeeze(name)), re.DOTALL
    )
    found = [task for task in allowed if task.kind == name or pattern.fullmatch(_squeeze(task.label))]
    if not found:
        known = [task.label for task in tasks] + sorted({task.kind for task in tasks})
        raise UsageError(
            f"no task matches '{name}'",
            fix=did_you_mean(name, known)
            or "`llmbuild plan` lists every task; quote labels: 'quantize[MODEL, SCHEME]'",
        )
    return found


def _squeeze(label: str) -> str:
    return label.replace(" ", "")
