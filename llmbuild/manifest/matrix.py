"""The build matrix: every [[build]] table is a product of three lists, less what it excludes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from llmbuild.errors import did_you_mean
from llmbuild.manifest.calling import called, is_pattern, matched
from llmbuild.manifest.name_list import listed_names
from llmbuild.manifest.problems import Problems
from llmbuild.manifest.schema import BuildTable, ExcludeTable, ManifestTable
from llmbuild.manifest.schemes import unknown_scheme
from llmbuild.quantization.scheme import SCHEMES
from llmbuild.targets.names import TargetNames
from llmbuild.tomlfile import KeyPath


@dataclass(frozen=True, slots=True)
class Cell:
    """One library: the names of its three parts, and the [[build]] table it comes from (None for the implied one).

    `by_pattern` is true where no platform was named, but a pattern that fits it."""

    model: str
    scheme: str
    platform: str
    metadata: Mapping[str, int]
    entry: int | None
    by_pattern: bool = False

    @property
    def label(self) -> str:
        return f"{self.model}, {self.scheme}, {self.platform}"

    @property
    def path(self) -> KeyPath:
        return () if self.entry is None else ("build", self.entry)


@dataclass(frozen=True, slots=True)
class Known:
    """The names that may be referenced, wrong tables included, so that one error does not cause others.  `platforms` has the
    target of each table, "" where it has none."""

    models: tuple[str, ...]
    schemes: Mapping[str, object]
    platforms: Mapping[str, str]
    targets: TargetNames

    def target(self, platform: str) -> str:
        """The target of a platform, with a table or without."""
        return self.platforms.get(platform) or self.targets.target_of(platform) or ""


def expand_matrix(manifest: ManifestTable, known: Known, problems: Problems) -> tuple[Cell, ...]:
    """All cells in the order of the manifest, each once."""
    if problems.is_broken(("build",)):
        return ()
    cells: dict[tuple[str, str, str], Cell] = {}
    entries: list[tuple[int | None, BuildTable]] = list(enumerate(manifest.build))
    for index, entry in entries or [(None, BuildTable())]:
        for cell in _expand(index, entry, known, problems):
            key = (cell.model, cell.scheme, cell.platform)
            if key not in cells or (cells[key].by_pattern and not cell.by_pattern):
                cells[key] = cell
                continue
            if cell.by_pattern and not cells[key].by_pattern:
                continue
            first = problems.file.line(cells[key].path)
            problems.add(
                cell.path,
                f"{cell.label} is already built by the [[build]] table in line {first}",
                fix="exclude it here, or remove it there",
            )
    return tuple(cells.values())


def _expand(index: int | None, entry: BuildTable, known: Known, problems: Problems) -> Sequence[Cell]:
    path: KeyPath = () if index is None else ("build", index)
    models = _names(path, "models", entry.models, tuple(known.models), known, problems)
    # Only tables are used by default: all presets of schemes, or all targets, are never intended.
    schemes = _names(path, "quantizations", entry.quantizations, tuple(known.schemes), known, problems)
    platforms = _names(path, "platforms", entry.platforms, tuple(known.platforms), known, problems)
    if models is None or schemes is None or platforms is None or problems.is_broken((*path, "exclude")):
        return ()
    expanded = _expand_patterns(platforms, known)
    cells = [
        Cell(model, scheme, platform, entry.metadata.given(), index, by_pattern)
        for model in models
        for scheme in schemes
        for platform, by_pattern in expanded.items()
    ]
    targets = {platform: known.target(platform) for platform in expanded}
    kept = cells
    valid = True
    for number, exclude in enumerate(entry.exclude):
        place = (*path, "exclude", number)
        if not _check_exclude(place, exclude, known, problems):
            valid = False
            continue
        # A pattern or an alias calls several platforms, one that is not in this [[build]] calls none.
        out = None if exclude.platform is None else called(exclude.platform, targets, known.targets)
        if not any(_matches(exclude, out, cell) for cell in cells):
            problems.add(
                place,
                "this exclude matches nothing",
                why=f"no combination of this [[build]] has {_spoken(exclude)}",
                fix="remove it, or correct the names",
            )
        kept = [cell for cell in kept if not _matches(exclude, out, cell)]
    if cells and valid and not kept:
        problems.add(path, "the build is empty: everything in it is excluded", fix="remove an exclude")
    return kept


def _names(
    path: KeyPath,
    key: str,
    given: list[str] | None,
    default: tuple[str, ...],
    known: Known,
    problems: Problems,
) -> list[str] | None:
    """The names of one list, or None when it has an error."""
    place = (*path, key)
    if problems.is_broken(place):
        return None
    table = {"models": "[models.NAME]", "quantizations": "[quantizations.NAME]", "platforms": "[platforms.NAME]"}[key]
    if given is None:
        if default:
            return list(default)
        if key == "models":
            return None  # The caller reports once that there are no models at all.
        what = f"nothing says which {key} to build"
        example = '["q4f16_1"]' if key == "quantizations" else '["x86_64-linux-cpu"]'
        problems.add(path, what, fix=f"write {key} = {example} in [[build]], or add a {table} table")
        return None
    return listed_names(
        place, given, "built", lambda spot, name: _check_listed(spot, key, name, known, problems), problems
    )


def _check_listed(path: KeyPath, key: str, name: str, known: Known, problems: Problems) -> bool:
    """Whether a name of a list is known, or a pattern that fits something."""
    if key != "platforms" or not is_pattern(name):
        return _check_name(path, key, name, known, problems)
    if matched(name, known.platforms, known.targets):
        return True
    everything = ", ".join((*known.platforms, *known.targets.own))
    problems.add(path, f"no platform or target fits '{name}'", fix=f"known platforms and targets: {everything}")
    return False


def _check_name(path: KeyPath, key: str, name: str, known: Known, problems: Problems) -> bool:
    if key == "quantizations":
        if name in SCHEMES or name in known.schemes:
            return True
        what, fix = unknown_scheme(name, known.schemes)
        problems.add(path, what, fix=fix)
        return False
    if key == "models":
        names: tuple[str, ...] = known.models
        what, listed = f"unknown model '{name}'", f"the manifest has {', '.join(names) or 'no models'}"
    else:
        names = tuple(dict.fromkeys((*known.platforms, *known.targets.own)))
        what, listed = f"unknown platform '{name}'", f"known platforms and targets: {', '.join(names)}"
    if name in names or (key == "platforms" and (is_pattern(name) or known.targets.target_of(name) is not None)):
        return True
    if key == "platforms":
        # All of them fill a screen.
        problems.add(path, what, fix=known.targets.nearest(name, names) or listed)
        return False
    near = did_you_mean(name, names)
    problems.add(path, what, fix=f"{near} ({listed})" if near else listed)
    return False


def _check_exclude(path: KeyPath, exclude: ExcludeTable, known: Known, problems: Problems) -> bool:
    if problems.any_broken((*path, key) for key in ("model", "quantization", "platform")):
        return False
    given = _given(exclude)
    if not given:
        problems.add(
            path, "an exclude without keys would exclude everything", fix="give model, quantization or platform"
        )
        return False
    plural = {"model": "models", "quantization": "quantizations", "platform": "platforms"}
    valid = [_check_name((*path, key), plural[key], name, known, problems) for key, name in given]
    return all(valid)


def _given(exclude: ExcludeTable) -> list[tuple[str, str]]:
    return [(key, name) for key, name in exclude if name is not None]


def _spoken(exclude: ExcludeTable) -> str:
    return " and ".join(f"{key} '{name}'" for key, name in _given(exclude))


def _matches(exclude: ExcludeTable, platforms: Collection[str] | None, cell: Cell) -> bool:
    return (
        exclude.model in (None, cell.model)
        and exclude.quantization in (None, cell.scheme)
        and (platforms is None or cell.platform in platforms)
    )


def _expand_patterns(platforms: Sequence[str], known: Known) -> dict[str, bool]:
    """The platforms of a list, each with whether only a pattern calls it.  A target that is named, itself or by an alias, is not
    built under a second name."""
    found = {name: False for name in platforms if not is_pattern(name)}
    named = {known.target(name) for name in found}
    for pattern in filter(is_pattern, platforms):
        for name in matched(pattern, known.platforms, known.targets):
            if known.target(name) not in named or name in known.platforms:
                found.setdefault(name, True)
    return found
