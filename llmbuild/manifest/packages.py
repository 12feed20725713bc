"""[package.NAME] tables to packages: which libraries of the matrix each takes, its options, and where its folder lies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from llmbuild.engine.names import unfit
from llmbuild.errors import did_you_mean
from llmbuild.manifest.name_list import listed_names
from llmbuild.manifest.project import Combination, Model, Package, PackagedLibrary, Platform
from llmbuild.packages import kind as kinds
from llmbuild.printable import either, several
from llmbuild.targets.compile_part import device_kind

if TYPE_CHECKING:
    from llmbuild.canonical import Json
    from llmbuild.manifest.platforms import ResolvedPlatform
    from llmbuild.manifest.problems import Problems
    from llmbuild.manifest.schema_results import PackageTable
    from llmbuild.sources.kind import Source
    from llmbuild.tomlfile import KeyPath

OF_EVERY_KIND = frozenset({"kind", "models", "quantizations", "platforms", "output", "memory"})
"""The keys of a table that do not depend on the kind of package."""

_PARTS = {"models": "model", "quantizations": "quantization", "platforms": "platform"}
_ADAPTER = "adapter"


def packaged_platform(platform: Platform) -> kinds.Platform:
    """What a package kind knows of a platform."""
    return kinds.Platform(
        name=platform.name,
        artifact=platform.artifact,
        triple=str(platform.link.get("triple", "")),
        device=device_kind(platform.compile),
        prefix=platform.system_lib_prefix or "",
    )


def resolve_packages(
    tables: Mapping[str, PackageTable],
    models: Mapping[str, Model],
    resolved: Mapping[str, ResolvedPlatform],
    matrix: Sequence[Combination] | None,
    output: str,
    problems: Problems,
) -> dict[str, Package]:
    """The packages by name; errors are added to `problems`, and a table that has one is left out.

    `matrix` is None where errors of models, platforms or builds have left cells out: what a package has is not known then, and
    that it has none of them would be no error of its own.
    """
    platforms = {name: one.platform for name, one in resolved.items()}
    found: dict[str, Package] = {}
    for name, table in tables.items():
        kind = _kind(name, table, problems)
        if kind is None:
            continue
        options = _options(name, table, kind, problems)
        if matrix is None:
            continue
        libraries = _libraries(name, table, kind, models, platforms, matrix, problems)
        if options is None or libraries is None:
            continue
        uses = [kinds.Use(one.model, one.scheme, packaged_platform(platforms[one.platform])) for one in libraries]
        for mistake in kind.mistakes(options, uses):
            path: KeyPath = ("package", name) if not mistake.platform else ("platforms", mistake.platform)
            path = (*path, mistake.key) if mistake.key else path
            problems.add(path, mistake.what, why=mistake.why, fix=mistake.fix)
        sources = _sources(name, kind.sources(options), problems)
        found[name] = Package(
            name=name,
            kind=kind.name,
            libraries=tuple(
                PackagedLibrary(one.model, one.scheme, one.platform.name, kind.archive(one.platform)) for one in uses
            ),
            options=options,
            sources=sources,
            output=f"{output}/{table.output or name}",
            memory=None if table.memory is None else _memory(name, table.memory, problems),
        )
    _check_outputs(found, tables, matrix or (), output, problems)
    return found


def _kind(name: str, table: PackageTable, problems: Problems) -> kinds.PackageKind | None:
    from llmbuild.packages.kinds import kind_names, package_kind

    path = ("package", name, "kind")
    if problems.is_broken(path):
        return None
    known = kind_names()
    if table.kind is None and name not in known:
        if not problems.is_misspelt(path):
            problems.add(
                ("package", name),
                f"nothing says what kind of package '{name}' is",
                fix=f'add kind = "…": {either(known)}',
            )
        return None
    kind = table.kind or name
    if kind not in known:
        fix = did_you_mean(kind, known)
        problems.add(path, f"there is no kind of package '{kind}'", fix=fix or f"the kinds are: {', '.join(known)}")
        return None
    return package_kind(kind)


def _memory(name: str, text: str, problems: Problems) -> int | None:
    """The bytes of a limit."""
    from llmbuild.engine.limits import parse_memory
    from llmbuild.errors import UsageError

    try:
        return parse_memory(text)
    except UsageError as error:
        problems.add(("package", name, "memory"), error.what, fix=error.fix)
        return None


def _options(name: str, table: PackageTable, kind: kinds.PackageKind, problems: Problems) -> dict[str, Json] | None:
    """The keys of the kind that are set; None where some key is of other kinds, or could not be used."""
    from llmbuild.packages.kinds import kind_names, package_kind

    path = ("package", name)
    given: dict[str, Json] = table.model_dump(exclude_none=True, by_alias=True)
    options = {key: value for key, value in given.items() if key not in OF_EVERY_KIND}
    wrong = options.keys() - kind.options
    for key in sorted(wrong):
        takers = [other for other in kind_names() if key in package_kind(other).options]
        problems.add(
            (*path, key),
            f"a package of kind '{kind.name}' has no {key}",
            why=f"it is a key of {' and '.join(takers)}",
            fix=f"remove {key}",
        )
    return None if wrong or problems.any_broken((*path, key) for key in kind.options) else options


def _libraries(
    name: str,
    table: PackageTable,
    kind: kinds.PackageKind,
    models: Mapping[str, Model],
    platforms: Mapping[str, Platform],
    matrix: Sequence[Combination],
    problems: Problems,
) -> list[Combination] | None:
    """The cells of the matrix that a package takes, in the order of its lists and else of the matrix."""
    path = ("package", name)
    if problems.any_broken((*path, key) for key in _PARTS):
        return None
    fitting = {one: kind.takes(packaged_platform(platforms[one])) for one in platforms}
    given = {
        "models": (table.models, dict.fromkeys(one.model for one in matrix)),
        "quantizations": (table.quantizations, dict.fromkeys(one.scheme for one in matrix)),
        "platforms": (table.platforms, dict.fromkeys(one.platform for one in matrix)),
    }
    valid = [_check_names((*path, key), key, names, known, problems) for key, (names, known) in given.items()]
    for number, one in enumerate(table.models or ()):
        if one in models and models[one].source is None:
            problems.add(
                (*path, "models", number),
                f"model '{one}' is a preset, which has no weights to package",
                fix="remove it, or give the model a source",
            )
            valid.append(False)
    for number, one in enumerate(table.platforms or ()):
        if not fitting.get(one, True):
            artifact = platforms[one].artifact
            problems.add(
                (*path, "platforms", number),
                f"a package of kind '{kind.name}' does not take platform '{one}'",
                why=f"it takes {kind.wants}, and this is .{artifact} for {platforms[one].link.get('triple', one)}",
                fix=_either("platforms", [other for other in given["platforms"][1] if fitting[other]]),
            )
            valid.append(False)
    if not all(valid):
        return None
    orders = [
        {one: place for place, one in enumerate(known if names is None else names)} for names, known in given.values()
    ]
    found = [
        one
        for one in matrix
        if fitting[one.platform] and all(name in order for order, name in zip(orders, _of(one), strict=True))
    ]
    presets = dict.fromkeys(one.model for one in found if not one.weights)
    found = [one for one in found if one.weights]
    found.sort(key=lambda one: [order[name] for order, name in zip(orders, _of(one), strict=True)])
    if found or not matrix:
        return found
    if presets:
        what = f"package '{name}' would be of presets alone, which have no weights to package"
        why = f"its libraries are those of {several(list(presets))}"
        fix = "give a model a source, or remove the package"
    else:
        what = f"no library of the matrix is for package '{name}'"
        why = f"a package of kind '{kind.name}' takes {kind.wants}"
        fix = "add a platform that makes them to a [[build]], or change the lists here"
    problems.add(path, what, why=why, fix=fix)
    return None


def _of(cell: Combination) -> tuple[str, str, str]:
    return cell.model, cell.scheme, cell.platform


def _check_names(path: KeyPath, key: str, names: list[str] | None, known: Iterable[str], problems: Problems) -> bool:
    """Whether each name of a list is that of something that is built."""

    def check(spot: KeyPath, one: str) -> bool:
        if one in known:
            return True
        near = did_you_mean(one, known)
        problems.add(spot, f"no build has a {_PARTS[key]} '{one}'", fix=near or _either(key, list(known)))
        return False

    return names is None or listed_names(path, names, "packaged", check, problems) is not None


def _either(key: str, names: list[str]) -> str:
    return f"the {key} are: {', '.join(names)}" if names else f"add one to the {key} of a [[build]]"


def _sources(name: str, texts: Mapping[str, str], problems: Problems) -> dict[str, Source]:
    from llmbuild.manifest.source import parse_source
    from llmbuild.sources.kind import SourceError

    found: dict[str, Source] = {}
    for key, text in texts.items():
        assert key != _ADAPTER, "a model's adapter has the label fetch[NAME, adapter]"
        try:
            found[key] = parse_source(text, of_package=True)
        except SourceError as error:
            problems.add(("package", name, key), error.what, fix=error.fix)
    return found


def _check_outputs(
    packages: Mapping[str, Package],
    tables: Mapping[str, PackageTable],
    matrix: Sequence[Combination],
    output: str,
    problems: Problems,
) -> None:
    """Two results must not lie in one place."""
    taken = {f"{output}/libs": "libraries", f"{output}/provenance": "statements"}
    for one in matrix:
        if one.weights:
            taken[one.weights] = f"the files of model '{one.model}' in {one.scheme}"
    for name, package in packages.items():
        given = tables[name].output
        path = ("package", name, "output") if given is not None else ("package", name)
        folder = package.output[len(output) + 1 :]
        why = "it is not one name" if "/" in folder or "\\" in folder else unfit(package.output)
        if why is not None:
            problems.add(
                path, f"'{folder}' cannot be the folder of a package", why=why, fix=f'name one, such as "{name}"'
            )
            continue
        first = taken.setdefault(package.output, f"the files of package '{name}'")
        if first != f"the files of package '{name}'":
            problems.add(
                path,
                f"package '{name}' would be in {package.output}, where {first} are",
                fix='give it another folder: output = "…"',
            )
