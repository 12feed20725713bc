"""Checks of what must match in a library or between libraries: number types and devices, and the prefixes of archives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from llmbuild.errors import LlmbuildError
from llmbuild.manifest.inputs_read import Read
from llmbuild.manifest.matrix import Cell
from llmbuild.manifest.notes import told
from llmbuild.manifest.platforms import ResolvedPlatform
from llmbuild.manifest.problems import Problems
from llmbuild.manifest.project import Model
from llmbuild.manifest.schema import ManifestTable
from llmbuild.quantization.scheme import SCHEMES, Scheme
from llmbuild.sources.kinds import source_kind
from llmbuild.targets.compile_part import CPU
from llmbuild.targets.target import STATIC
from llmbuild.tasks.prefix import MODEL_TYPE, fill


def check_scheme(cell: Cell, scheme: Scheme, model: Model, platform: ResolvedPlatform, problems: Problems) -> None:
    """Check that a scheme fits the platform's number types and the treatment of the model's weights."""
    _check_dtype(cell, scheme, platform, problems)
    if scheme.comes_packed and model.adapter is not None:
        problems.add(
            cell.path,
            f"{scheme.name} takes weights that come packed, and the adapter of model '{cell.model}' cannot be merged into them",
            fix=f"remove the adapter, or exclude this combination ({cell.label})",
        )


def _check_dtype(cell: Cell, scheme: Scheme, platform: ResolvedPlatform, problems: Problems) -> None:
    """A scheme computes in a number type that not every device supports."""
    target = platform.target
    if target.can_compute(scheme.dtype):
        return
    attribute = f"supports_{scheme.dtype}"
    if attribute in target.kind.attributes and scheme.dtype in target.dtypes:
        why = f"its device has {attribute} = {str(bool(target.device.get(attribute, False))).lower()}"
    else:
        why = f"target '{target.name}' computes in {' and '.join(target.dtypes)}"
    near = [
        other
        for other in SCHEMES.values()
        if (other.bits == 0, other.comes_packed) == (scheme.bits == 0, scheme.comes_packed)
        and target.can_compute(other.dtype)
    ]
    # Of those with the fewest bits more or less the last one.
    best = min(reversed(near), key=lambda other: abs(other.bits - scheme.bits), default=None)
    instead = f"use {best.name} there, or exclude" if best is not None else "exclude"
    problems.add(
        cell.path,
        f"{scheme.name} computes in {scheme.dtype}, and platform '{cell.platform}' cannot",
        why=why,
        fix=f"{instead} this combination ({cell.label})",
    )


def computable(
    cells: Sequence[Cell], schemes: Mapping[str, Scheme], platforms: Mapping[str, ResolvedPlatform]
) -> tuple[Sequence[Cell], tuple[str, ...]]:
    """The cells without those of patterns whose device cannot compute in the scheme's number type, and notes on these.

    A platform that is named with such a scheme is an error of `check_scheme`.
    """
    kept: list[Cell] = []
    out: dict[str, dict[str, None]] = {}
    for cell in cells:
        scheme, platform = schemes.get(cell.scheme), platforms.get(cell.platform)
        if cell.by_pattern and scheme and platform and not platform.target.can_compute(scheme.dtype):
            out.setdefault(cell.scheme, {})[cell.platform] = None
        else:
            kept.append(cell)
    notes = (
        f"{name} is not built for {', '.join(found)}: they cannot compute in {schemes[name].dtype}"
        for name, found in out.items()
    )
    return kept, tuple(notes)


def feature_notes(
    cells: Sequence[Cell], schemes: Mapping[str, Scheme], platforms: Mapping[str, ResolvedPlatform]
) -> tuple[str, ...]:
    """Features that a scheme's number type requires of the devices that run the libraries."""
    found: dict[tuple[str, str], list[str]] = {}
    for cell in cells:
        if cell.scheme in schemes and cell.platform in platforms:
            names = found.setdefault((cell.platform, schemes[cell.scheme].dtype), [])
            if cell.scheme not in names:
                names.append(cell.scheme)
    notes = []
    for (name, dtype), names in found.items():
        features = platforms[name].target.required_features(dtype)
        if features:
            need = f"the device that runs the library must have {' and '.join(features)}"
            notes.append((f"platforms.{name}", f"{' and '.join(names)} in {dtype}: {need}"))
    return told(notes)


def kernel_notes(
    cells: Sequence[Cell], schemes: Mapping[str, Scheme], platforms: Mapping[str, ResolvedPlatform]
) -> tuple[str, ...]:
    """Schemes that a CPU computes without kernels of llmbuild."""
    found: dict[str, dict[str, None]] = {}
    for cell in cells:
        scheme, platform = schemes.get(cell.scheme), platforms.get(cell.platform)
        if (
            scheme is not None
            and platform is not None
            and platform.target.kind.name == CPU
            and not scheme.has_cpu_kernels
        ):
            found.setdefault(cell.platform, {})[cell.scheme] = None
    why = "no kernel of llmbuild for CPUs reads groups of so few words, and TVM's own loops are slower"
    return told((f"platforms.{name}", f"{' and '.join(names)}: {why}") for name, names in found.items())


def override_notes(schemes: Mapping[str, Scheme]) -> tuple[str, ...]:
    """What schemes store in other bits than the rest."""
    return told(
        (f"quantizations.{name}", f"{scheme.bits or 'no'} bits, but {'; '.join(map(str, scheme.overrides))}")
        for name, scheme in schemes.items()
        if scheme.overrides
    )


def check_prefixes(
    cells: Sequence[Cell],
    models: Mapping[str, Model],
    platforms: Mapping[str, ResolvedPlatform],
    manifest: ManifestTable,
    root: Path,
    reads: list[Read],
    problems: Problems,
) -> tuple[str, ...]:
    """Two archives of one platform are linked into one program, so their symbols need prefixes that differ.

    A model's type is part of the usual prefix.  It is known where the manifest sets it, for a preset, and for a directory,
    whose config.json is read (and added to `reads`).  Returns notes where it is unknown.
    """
    types = _Types(models, root, reads)
    notes = []
    for name, platform in platforms.items():
        template = platform.platform.system_lib_prefix
        if template is None or platform.platform.artifact not in STATIC:
            continue
        mine = [cell for cell in cells if cell.platform == name and cell.model in models]
        owners: dict[str, Cell] = {}
        unknown: list[str] = []
        for cell in mine:
            prefix = fill(template, model=cell.model, quantization=cell.scheme)
            if MODEL_TYPE in prefix and len(mine) > 1:
                model_type = types.of(cell.model)
                if model_type is None and cell.model not in unknown:
                    unknown.append(cell.model)
                prefix = fill(prefix, model_type=model_type)
            first = owners.setdefault(prefix, cell)
            if first is not cell and not (MODEL_TYPE in prefix and first.model != cell.model):
                _clash(name, manifest, prefix, first, cell, problems)
                break
        if unknown:
            said = ", ".join(f"models.{model}" for model in unknown)
            doubt = "whether two libraries have the same prefix is not known before the type of"
            notes.append((f"platforms.{name}", f"{doubt} {said} is; write model-type there"))
    return told(notes)


def _clash(name: str, manifest: ManifestTable, prefix: str, one: Cell, other: Cell, problems: Problems) -> None:
    table = manifest.platforms.get(name)
    given = table is not None and table.system_lib_prefix is not None
    path = ("platforms", name, "system-lib-prefix") if given else ("platforms", name) if table else other.path
    names = "{model}_{quantization}_"
    problems.add(
        path,
        f"'{one.label}' and '{other.label}' are archives with " + (f"the prefix '{prefix}'" if prefix else "no prefix"),
        why="linked into one program, their symbols would be the same",
        fix=f'write system-lib-prefix = "{names}" in [platforms.{name}], or make two platforms; of models that differ in '
        "their weights alone, one library is enough",
    )


class _Types:
    """The architectures of models, as far as they can be determined without a fetch."""

    def __init__(self, models: Mapping[str, Model], root: Path, reads: list[Read]) -> None:
        self._models = models
        self._root = root
        self._reads = reads
        self._known: dict[str, str | None] = {}

    def of(self, name: str) -> str | None:
        if name not in self._known:
            self._known[name] = self._find(self._models[name])
        return self._known[name]

    def _find(self, model: Model) -> str | None:
        from llmbuild.checkpoints.files import read_json
        from llmbuild.models.presets import preset
        from llmbuild.models.registry import infer_model_type

        if model.model_type is not None:
            return model.model_type
        try:
            if model.preset is not None:
                return infer_model_type(dict(preset(model.preset)))
            source = model.source
            file = None if source is None else source_kind(source.kind).configuration(source.spec, self._root)
            if file is not None:
                self._reads.append(Read.file(file))
                return infer_model_type(read_json(file, "config.json"))
        except LlmbuildError:
            # A checkpoint that cannot be read is reported by the task that reads it.
            return None
        return None
