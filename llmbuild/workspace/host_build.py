"""Building a model for this machine, whatever platforms its manifest names.

Where none of them runs here, the manifest is read with one more [[build]] table, for this machine's CPU.  The file
stays as it is, so that a later build of the manifest removes that library from the project; the cache keeps it.
"""

from __future__ import annotations

from pathlib import Path

from llmbuild.errors import LlmbuildError, MultiError, UsageError
from llmbuild.manifest.load import load
from llmbuild.manifest.locate import choose, runs_here
from llmbuild.manifest.project import Project
from llmbuild.targets.names import HOST


def with_host(manifest: Path, model: str | None, scheme: str | None) -> Project:
    """The project of a manifest with a library for this machine's CPU of one model and quantization: one that the manifest
    builds for some platform, and if it builds several, the one that is named.

    Raises UsageError where none or several fit, and what `load` raises."""
    project = load(manifest).project
    cells = choose(project, model, scheme, None, runnable_only=False)
    pairs = list(dict.fromkeys((cell.model, cell.scheme) for cell in cells if cell.weights))
    if len(pairs) != 1:
        raise UsageError(
            "the manifest has several models" if pairs else "nothing in the build matrix has weights",
            where=project.file,
            why=", ".join(f"[{one}, {other}]" for one, other in pairs) or None,
            fix="name one with MODEL and --quantization" if pairs else "give a model a source",
        )
    if any(runs_here(project, cell) and (cell.model, cell.scheme) == pairs[0] for cell in project.matrix):
        return project
    from llmbuild.manifest.schema import BuildTable

    (found,) = pairs
    also = BuildTable(models=[found[0]], quantizations=[found[1]], platforms=[HOST])
    try:
        return load(manifest, also=also).project
    except LlmbuildError as error:
        errors = error.errors if isinstance(error, MultiError) else (error,)
        raise UsageError(
            "the manifest takes no library for this machine",
            where=str(manifest),
            # Without their places: they are in a table that the file does not have.
            why="; ".join(one.what for one in errors),
            fix=f'add "{HOST}" to the platforms of a build',
        ) from error
