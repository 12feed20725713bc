"""Find a built library and its weight directory from a manifest, or from explicit paths."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from llmbuild.errors import UsageError, did_you_mean
from llmbuild.manifest.project import Combination, Project
from llmbuild.targets.compile_part import is_cpu


@dataclass(frozen=True, slots=True)
class BuiltModel:
    """A library with the weights it runs on, and its cell of the matrix where a manifest has it."""

    label: str
    library: Path
    weights: Path
    cell: Combination | None = None

    @property
    def there(self) -> bool:
        """Whether both have been built."""
        return self.library.is_file() and self.weights.is_dir()


def choose(
    project: Project, model: str | None, scheme: str | None, platform: str | None, *, runnable_only: bool = True
) -> list[Combination]:
    """The cells of the matrix that fit the selection; raises UsageError, with suggestions, when none does."""
    for name, known, what in (
        (model, project.models, "model"),
        (scheme, project.schemes, "quantization"),
        (platform, project.platforms, "platform"),
    ):
        if name is not None and name not in known:
            raise UsageError(
                f"no {what} '{name}' in the manifest",
                where=project.file,
                fix=did_you_mean(name, known) or f"the manifest has: {', '.join(sorted(known))}",
            )
    cells = [
        cell
        for cell in project.matrix
        if model in (None, cell.model) and scheme in (None, cell.scheme) and platform in (None, cell.platform)
    ]
    here: list[Combination] = []
    if runnable_only:
        here = [cell for cell in project.matrix if cell.weights and runs_here(project, cell)]
        cells = [cell for cell in cells if cell in here]
    if not cells:
        runs = " and runs on this machine" if runnable_only else ""
        raise UsageError(
            f"nothing in the build matrix fits this selection{runs}",
            where=project.file,
            why="a preset has no weights, and a .tar or another machine's library cannot be loaded" if runs else None,
            fix='add "host" to the platforms of a [[build]], and build it'
            if runnable_only and not here
            else "select another model, --quantization or --platform",
        )
    return cells


def runs_here(project: Project, cell: Combination) -> bool:
    """Whether this process can load the library: a shared library for this machine's CPU."""
    import platform as machine

    platform = project.platforms[cell.platform]
    host = platform.compile.get("host")
    triple = str(host.get("mtriple", "")) if isinstance(host, Mapping) else ""
    return is_cpu(platform.compile) and platform.artifact == "so" and triple.split("-")[0] == machine.machine()


def built(project: Project, cell: Combination) -> BuiltModel:
    """The paths of one cell."""
    root = Path(project.root)
    label = f"{cell.model}, {cell.scheme}, {cell.platform}"
    return BuiltModel(label, root / cell.library, root / cell.weights, cell)
