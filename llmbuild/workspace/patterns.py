"""Platforms that a pattern calls, such as those of `platforms = ["*"]`: built where this machine can, else left out with a note.

The lock file lists those that were built, so that with --locked every machine builds the same ones, or says what it lacks.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence

from llmbuild.errors import LlmbuildError
from llmbuild.manifest.lock import Lock
from llmbuild.manifest.project import Combination, Project
from llmbuild.plan.narrow import with_matrix
from llmbuild.plan.observed import Observed
from llmbuild.workspace.locking import TARGET
from llmbuild.workspace.options import OnNote


def without_unbuildable(project: Project, observed: Observed, locked: Lock | None, on_note: OnNote) -> Project:
    """The project without the platforms of patterns that this machine lacks something for; those that a lock lists stay."""
    out: dict[str, LlmbuildError] = {}
    called = dict.fromkeys(cell.platform for cell in project.matrix if cell.by_pattern)
    for name in called:
        lacks = observed.lacks.get(name)
        if lacks and (locked is None or f"{TARGET} {name}" not in locked.toolchain):
            out[name] = next(iter(lacks.values())).errors[0]
    if not out:
        return project
    matrix = tuple(cell for cell in project.matrix if not (cell.by_pattern and cell.platform in out))
    if not matrix:
        # Then the plan says what each of them lacks.
        return project
    kept = with_matrix(project, matrix)
    on_note(_note(out, len(called), [name for name in project.packages if name not in kept.packages]))
    return kept


def _note(out: dict[str, LlmbuildError], called: int, packages: Sequence[str]) -> str:
    causes: dict[str, list[str]] = {}
    for name, error in out.items():
        causes.setdefault(error.what, []).append(name)
    listed = "; ".join(f"{', '.join(names)}: {what}" for what, names in causes.items())
    are = "is" if len(out) == 1 else "are"
    without = f"; without them there is no package {', '.join(packages)}" if packages else ""
    return (
        f"{len(out)} of {called} platforms that a pattern calls {are} left out, as this machine cannot build for "
        f"{'it' if len(out) == 1 else 'them'} (-p NAME says what to install): {listed}{without}"
    )


def with_named(project: Project, tasks: Sequence[str]) -> Project:
    """The project with the platforms that these names of tasks contain, and those of named packages, as if the manifest named
    them."""
    packages = [one for name, one in project.packages.items() if any(name in task for task in tasks)]
    names = {library.platform for package in packages for library in package.libraries}
    return _named(project, names | {name for name in project.platforms if any(name in task for task in tasks)})


def as_named(project: Project) -> Project:
    """The project with all its platforms as if the manifest named them."""
    return _named(project, project.platforms.keys())


def _named(project: Project, names: Collection[str]) -> Project:
    def named(cell: Combination) -> Combination:
        return dataclasses.replace(cell, by_pattern=cell.by_pattern and cell.platform not in names)

    if not any(cell.by_pattern and cell.platform in names for cell in project.matrix):
        return project
    return dataclasses.replace(project, matrix=tuple(map(named, project.matrix)))
