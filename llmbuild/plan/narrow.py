"""The selected part of a project: by model, platform and scheme."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

from llmbuild.errors import UsageError, did_you_mean
from llmbuild.manifest.project import Combination, Project


def narrow(
    project: Project, *, models: Sequence[str] = (), platforms: Sequence[str] = (), schemes: Sequence[str] = ()
) -> Project:
    """The project with only the cells of the matrix that match, and the packages that need no others; an empty list matches all.

    This precedes every look-up, so that a source or a tool of another cell need not be there.  Raises
    UsageError with the nearest known names.
    """
    _refuse_unknown("model", models, project.models)
    _refuse_unknown("platform", platforms, project.platforms)
    _refuse_unknown("quantization", schemes, {**project.schemes, **{cell.scheme: None for cell in project.matrix}})
    matrix = tuple(
        cell
        for cell in project.matrix
        if (not models or cell.model in models)
        and (not platforms or cell.platform in platforms)
        and (not schemes or cell.scheme in schemes)
    )
    if not matrix:
        raise UsageError(
            "the build matrix has no library of this model, quantization and platform",
            fix="`llmbuild plan` lists every task",
        )
    return with_matrix(project, matrix)


def with_matrix(project: Project, matrix: tuple[Combination, ...]) -> Project:
    """The project with these cells of its matrix alone, and the packages that need no others."""
    cells = {(cell.model, cell.scheme, cell.platform) for cell in matrix}
    packages = {
        name: package
        for name, package in project.packages.items()
        if all((one.model, one.scheme, one.platform) in cells for one in package.libraries)
    }
    return dataclasses.replace(project, matrix=matrix, packages=packages)


def _refuse_unknown(what: str, names: Iterable[str], known: Iterable[str]) -> None:
    known = sorted(known)
    for name in names:
        if name not in known:
            listed = f"the manifest has {', '.join(known)}" if known else "the manifest has none"
            near = did_you_mean(name, known)
            raise UsageError(
                f"no {what} is named '{name}'", why=listed, fix=near or f"name it in a [[build]], under {what}s"
            )
