"""From a manifest file to a project: shape, references, sizes and the matrix checked, every error reported at once.

`load` needs pydantic; the import is inside, so that importing this module does not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from llmbuild.engine.names import unfit
from llmbuild.manifest.inputs_read import Read
from llmbuild.manifest.lock import LOCK_FILE
from llmbuild.manifest.notes import told
from llmbuild.manifest.project import Combination, Model, Platform, Project, Quality

if TYPE_CHECKING:
    from llmbuild.manifest.matrix import Cell, Known
    from llmbuild.manifest.platforms import ResolvedPlatform
    from llmbuild.manifest.problems import Problems
    from llmbuild.manifest.schema import BuildTable, ManifestTable

USER_TARGETS = "targets"
"""The directory beside the manifest with a user's own target files."""

_LONGEST_SUFFIX = ".intoto.json"
"""The longest suffix of a result's name in the name of another file."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A project, the files it was made from (the manifest first), and notes, which are no errors."""

    project: Project
    reads: tuple[Read, ...]
    notes: tuple[str, ...]


def load_project(path: Path) -> Project:
    """The project of a manifest file; see `load` for the errors."""
    return load(path).project


def load(path: Path, text: str | None = None, *, also: BuildTable | None = None) -> Loaded:
    """Read a manifest (or check `text` as if it were at `path`); `also` is built besides what its [[build]] tables say.

    Raises UsageError, or a MultiError with every error; an InputError for a broken template file, a ToolchainError for
    a native target on another machine.
    """
    from llmbuild.manifest.combinations import (
        check_prefixes,
        check_scheme,
        computable,
        feature_notes,
        kernel_notes,
        override_notes,
    )
    from llmbuild.manifest.matrix import Known, expand_matrix
    from llmbuild.manifest.models import files_of, resolve_model, variables_read
    from llmbuild.manifest.packages import resolve_packages
    from llmbuild.manifest.platforms import targets_of_tables
    from llmbuild.manifest.problems import Problems
    from llmbuild.manifest.publish import resolve_publish
    from llmbuild.manifest.schemes import resolve_schemes
    from llmbuild.manifest.validate import check_shape
    from llmbuild.targets.names import TargetNames
    from llmbuild.tomlfile import parse_toml, read_toml

    file = read_toml(path) if text is None else parse_toml(text, str(path))
    root = path.absolute().parent
    targets = TargetNames(root / USER_TARGETS)
    reads = [Read.file(path.absolute()), Read.listing(root / USER_TARGETS)]
    problems = Problems(file)
    manifest = _with(also, check_shape(problems))
    of_shape = len(problems)

    schemes = resolve_schemes(manifest.quantizations, problems)
    defaults = manifest.metadata.given()
    models: dict[str, Model] = {}
    for name, table in manifest.models.items():
        model = resolve_model(name, table, defaults, root, problems)
        if model is not None:
            models[name] = model
        reads += [Read.file(root / file) for file in files_of(table)]
        reads += [Read.variable(variable) for variable in variables_read(table)]

    known = Known(
        models=_names(file.data, "models"),
        schemes=dict.fromkeys(_names(file.data, "quantizations")),
        platforms=targets_of_tables(_names(file.data, "platforms"), manifest.platforms, targets),
        targets=targets,
    )
    if not known.models and not problems.is_broken(("models",)):
        problems.add((), "the manifest has no models", fix="add a [models.NAME] table; `llmbuild init` writes one")
    # Without models and without [[build]] there are no further checks.
    cells: Sequence[Cell] = expand_matrix(manifest, known, problems) if known.models or manifest.build else ()

    platforms = _platforms(cells, manifest, known, reads, problems)
    output = _output(manifest.project.output, path.name, problems)
    wanted = cells
    cells, left_out = computable(cells, schemes, platforms)
    if wanted and not cells:
        problems.add(wanted[0].path, "the build is empty: no platform can compute this", why="; ".join(left_out))
    matrix = []
    for cell in cells:
        if cell.model in models and cell.scheme in schemes and cell.platform in platforms:
            check_scheme(cell, schemes[cell.scheme], models[cell.model], platforms[cell.platform], problems)
            sizes = _check_cell(cell, manifest, platforms[cell.platform], problems)
            matrix.append(_combination(cell, models[cell.model], platforms[cell.platform], sizes, output))
    _check_outputs(cells, matrix, problems)
    # Errors of shape are counted out: they may be the packages' own, and those of models and platforms leave cells out.
    packages = resolve_packages(
        manifest.package,
        models,
        platforms,
        matrix if len(problems) == of_shape and len(matrix) == len(cells) else None,
        output,
        problems,
    )
    publish = resolve_publish(manifest.publish, cells, problems)
    notes = check_prefixes(cells, models, platforms, manifest, root, reads, problems)
    problems.raise_if_any()

    used = {cell.scheme for cell in cells} | manifest.quantizations.keys()
    project = Project(
        name=manifest.project.name or root.name,
        file=str(path),
        root=str(root),
        output=output,
        provenance=bool(manifest.project.provenance),
        models=models,
        schemes={name: scheme for name, scheme in schemes.items() if name in used},
        platforms={name: platform.platform for name, platform in platforms.items()},
        matrix=tuple(matrix),
        packages=packages,
        publish=publish,
        measuring=_measuring(reads),
        calibrating=_calibrating(reads),
        quality=Quality(manifest.quality.calibration_text or "", manifest.quality.calibration_tokens),
    )
    of_schemes = (
        *feature_notes(cells, schemes, platforms),
        *kernel_notes(cells, schemes, platforms),
        *override_notes(project.schemes),
    )
    return Loaded(project, tuple(dict.fromkeys(reads)), (*left_out, *_notes(project, platforms), *of_schemes, *notes))


def _with(also: BuildTable | None, manifest: ManifestTable) -> ManifestTable:
    from llmbuild.manifest.schema import BuildTable

    if also is None:
        return manifest
    # Without a [[build]] table everything is built for every platform, which an empty one says too.
    return manifest.model_copy(update={"build": [*(manifest.build or [BuildTable()]), also]})


def _platforms(
    cells: Sequence[Cell], manifest: ManifestTable, known: Known, reads: list[Read], problems: Problems
) -> dict[str, ResolvedPlatform]:
    """The platforms of the tables and of the cells by name; what they were made from is added to `reads`."""
    from llmbuild.manifest.platforms import implicit_platform, resolve_platform, uses_this_cpu

    platforms: dict[str, ResolvedPlatform] = {}
    implicit = dict.fromkeys(cell.platform for cell in cells if cell.platform not in known.platforms)
    for name, table in {**manifest.platforms, **{name: implicit_platform(name) for name in implicit}}.items():
        platform = resolve_platform(name, table, known.targets, problems)
        if platform is not None:
            platforms[name] = platform
            reads += [Read.file(target_file) for target_file in platform.target.files]
            if uses_this_cpu(platform.target):
                reads.append(Read.cpu(platform.target.triple))
            if platform.platform.by_machine:
                reads.append(Read.machine())
    reads += [Read.file(target_file) for target_file in known.targets.files_read]
    return platforms


def _measuring(reads: list[Read]) -> Platform | None:
    """The platform that weights are measured on; what it was made from is added to `reads`."""
    from llmbuild.manifest.measuring import measuring_platform

    platform, files = measuring_platform()
    reads += [*map(Read.file, files), Read.machine()]
    return platform


def _calibrating(reads: list[Read]) -> Platform:
    """The same of what weights are calibrated on."""
    from llmbuild.manifest.measuring import calibrating_platform

    platform, files = calibrating_platform()
    reads += map(Read.file, files)
    return platform


def _names(data: Mapping[str, object], table: str) -> tuple[str, ...]:
    value = data.get(table)
    return tuple(value) if isinstance(value, dict) else ()


def _output(output: str, manifest: str, problems: Problems) -> str:
    """The normalized output directory; an invalid one, or one that has another use, is a problem."""
    from llmbuild.manifest.validate import spoken

    path = PurePosixPath(output)
    if not output or path.is_absolute() or ".." in path.parts or str(path) == "." or "\\" in output:
        problems.add(
            ("project", "output"),
            f"{spoken(output)} is not a directory inside the project",
            why="llmbuild replaces what it finds there",
            fix='name one, such as output = "dist"',
        )
        return "dist"
    why = unfit(str(path))
    if why is None and path.parts[0] in (USER_TARGETS, LOCK_FILE, manifest):
        why = f"{path.parts[0]} is not for results"
    if why is not None:
        problems.add(
            ("project", "output"),
            f"{spoken(output)} cannot be the output directory",
            why=why,
            fix='name another one, such as output = "dist"',
        )
        return "dist"
    return str(path)


def _check_cell(
    cell: Cell, manifest: ManifestTable, platform: ResolvedPlatform, problems: Problems
) -> Mapping[str, int]:
    """Check the effective sizes of one library; returns the values that override the platform's and the model's."""
    from llmbuild.manifest.sizes import PrecedenceLevel, check_sizes

    def layer(values: Mapping[str, int], *table: str | int) -> PrecedenceLevel:
        return PrecedenceLevel(values, {key: (*table, key) for key in values})

    target_values = platform.target.metadata
    of_platform = ("platforms", cell.platform)
    layers = [
        PrecedenceLevel(target_values, dict.fromkeys(target_values, of_platform), from_target=True),
        layer(manifest.metadata.given(), "metadata"),
        layer(manifest.models[cell.model].metadata.given(), "models", cell.model, "metadata"),
        PrecedenceLevel(platform.platform.metadata, platform.paths),
        layer(cell.metadata, *cell.path, "metadata"),
    ]
    check_sizes(
        layers,
        platform.target.kind,
        lambda path, what, fix: problems.add(path, what, fix=fix),
        several=platform.target.several_devices,
    )
    set_by_user = {key for each in layers[1:4] for key in each.values}
    return {**{key: value for key, value in target_values.items() if key not in set_by_user}, **cell.metadata}


def _combination(
    cell: Cell, model: Model, platform: ResolvedPlatform, metadata: Mapping[str, int], output: str
) -> Combination:
    stem = f"{cell.model}-{cell.scheme}"
    return Combination(
        model=cell.model,
        scheme=cell.scheme,
        platform=cell.platform,
        metadata=metadata,
        library=f"{output}/libs/{stem}-{cell.platform}.{platform.platform.artifact}",
        weights="" if model.source is None else f"{output}/{stem}-MLC",
        by_pattern=cell.by_pattern,
    )


def _check_outputs(cells: Sequence[Cell], matrix: Sequence[Combination], problems: Problems) -> None:
    """Names may be chosen so that two of them, joined by hyphens, read the same, or are longer than a file's name can be."""
    from llmbuild.manifest.validate import spoken

    entries = {(cell.model, cell.scheme, cell.platform): cell for cell in cells}
    owners: dict[str, tuple[str, ...]] = {}
    for item in matrix:
        cell = entries[item.model, item.scheme, item.platform]
        for path, owner in ((item.library, (cell.label,)), (item.weights, (item.model, item.scheme))):
            if path and (why := unfit(f"{path}{_LONGEST_SUFFIX}")) is not None:
                problems.add(
                    cell.path,
                    f"the results of '{', '.join(owner)}' cannot have the name {spoken(path.rpartition('/')[2])}",
                    why=why,
                    fix="give the model, the quantization or the platform a shorter name",
                )
            first = owners.setdefault(path, owner)
            if path and first != owner:
                problems.add(
                    cell.path,
                    f"'{', '.join(first)}' and '{', '.join(owner)}' both write {path}",
                    fix="rename a model, a quantization or a platform",
                )


def _notes(project: Project, platforms: Mapping[str, ResolvedPlatform]) -> tuple[str, ...]:
    of_platforms = [(f"platforms.{name}", note) for name, platform in platforms.items() for note in platform.notes]
    notes = list(told(of_platforms))
    used = {part for item in project.matrix for part in (("models", item.model), ("platforms", item.platform))}
    notes += [f"models.{name} is in no build" for name in project.models if ("models", name) not in used]
    notes += [f"platforms.{name} is in no build" for name in project.platforms if ("platforms", name) not in used]
    return tuple(notes)
