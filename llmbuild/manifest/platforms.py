"""[platforms.NAME] tables to platforms: a target with the manifest's changes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from llmbuild.canonical import Json
from llmbuild.errors import MultiError, ToolchainError, UsageError, did_you_mean
from llmbuild.manifest.measuring import CALIBRATING, MEASURING
from llmbuild.manifest.opt import DEFAULT_LEVEL, Opt, make_opt, parse_opt, resolve_opt
from llmbuild.manifest.problems import Problems
from llmbuild.manifest.project import Platform
from llmbuild.manifest.schema import HostTable, OptTable, PlatformTable
from llmbuild.manifest.sizes import METADATA_KEYS, parse_overrides
from llmbuild.targets.compile_part import device_kind, is_cpu
from llmbuild.targets.files import device_errors, load_target, wrong_prefix
from llmbuild.targets.names import HOST, TargetNames
from llmbuild.targets.target import NATIVE, SHARED, STATIC, Target
from llmbuild.tomlfile import KeyPath


@dataclass(frozen=True, slots=True)
class ResolvedPlatform:
    """A platform with its target, notes on it, and where the manifest sets its values."""

    platform: Platform
    target: Target
    notes: tuple[str, ...]
    paths: Mapping[str, KeyPath]


def resolve_platform(
    name: str, table: PlatformTable, targets: TargetNames, problems: Problems
) -> ResolvedPlatform | None:
    """A platform, or None when its table has an error (which is added to `problems`)."""
    path = ("platforms", name)
    if name in (MEASURING, CALIBRATING):
        problems.add(
            path,
            f"'{name}' cannot be the name of a platform",
            why=f"in labels it is the one that weights are {'measured' if name == MEASURING else 'calibrated'} on",
            fix="choose another name",
        )
        return None
    if problems.is_broken((*path, "target")):
        return None
    target = _target(name, table, targets, problems)
    if target is None:
        return None
    target = _with_host(target, table, (*path, "host"), problems)
    target = _with_device(target, table, (*path, "device"), problems)
    opt = _opt(table, target, (*path, "opt"), problems)
    artifact = _artifact(table, target, (*path, "artifact"), problems)
    metadata, paths = _metadata(table, path, problems)
    notes: list[str] = []
    prefix = _prefix(table, target, artifact, (*path, "system-lib-prefix"), notes, problems)
    for key in target.metadata:
        if key not in METADATA_KEYS:
            fix = did_you_mean(key, METADATA_KEYS)
            problems.add_error(
                path, UsageError(f"unknown key '{key}' in [defaults] metadata", where=_file(target), fix=fix)
            )
    try:
        compile_part = target.compile_part()
    except ToolchainError as error:
        problems.add((*path, "target"), error.what, why=error.why, fix=error.fix)
        return None
    if opt is None or artifact is None:
        return None
    flags, opt_notes = resolve_opt(opt, target.kind.name)
    notes += [f"opt: {note}" for note in opt_notes]
    notes += _limit_notes(target)
    platform = Platform(
        name=name,
        target=target.name,
        by_machine=_wanted(name, table) == HOST != target.name,
        compile=compile_part,
        link=target.link_part(),
        artifact=artifact,
        metadata=metadata,
        opt=flags,
        system_lib_prefix=prefix,
        activations=_activations(table, compile_part, notes),
        features={dtype: list(words) for dtype in target.dtypes if (words := target.required_features(dtype))},
        tools=[{"command": tool.command, "install": tool.install} for tool in target.tools],
    )
    return ResolvedPlatform(platform, target, tuple(notes), paths)


def _limit_notes(target: Target) -> Iterator[str]:
    """Attributes that are larger than what any runtime of the device kind asks a device for."""
    for name, most in target.kind.runtime_limits.items():
        value = target.device.get(name)
        if isinstance(value, int) and value > most:
            yield f"the runtimes ask a {target.kind.name} device for {name} {most} at most, and refuse kernels that need {value}"


def _file(target: Target) -> str:
    return str(target.files[0])


def _wanted(name: str, table: PlatformTable) -> str:
    """The name of a target, or an alias of one."""
    return name if table.target is None else table.target


def _target(name: str, table: PlatformTable, targets: TargetNames, problems: Problems) -> Target | None:
    wanted = _wanted(name, table)
    found = targets.target_of(wanted)
    if found is None:
        listed = f"known targets: {', '.join(targets.own)}"
        near = targets.nearest(wanted, targets.own)
        if table.target is None:
            what, key = "the platform has no target, and there is none of its name", ("platforms", name)
            problems.add(key, what, fix=f"{near or 'add target = …'} ({listed})")
        else:
            problems.add(
                ("platforms", name, "target"),
                f"unknown target '{wanted}'",
                fix=near or listed,
            )
        return None
    try:
        return load_target(found, targets.user)
    except (UsageError, MultiError) as error:
        problems.add_error(("platforms", name), error)
        return None


def _with_host(target: Target, table: PlatformTable, path: KeyPath, problems: Problems) -> Target:
    if table.host is None:
        return target
    host = HostTable(triple=table.host) if isinstance(table.host, str) else table.host
    triple = target.triple if host.triple is None else host.triple
    if not re.fullmatch(r"[A-Za-z0-9_.]+(-[A-Za-z0-9_.]+){1,3}", triple):
        problems.add(path, f"'{triple}' is not an LLVM triple", fix="write it like x86_64-unknown-linux-gnu")
        return target
    if triple.split("-")[0] != target.triple.split("-")[0] and host.cpu is None and target.cpu:
        problems.add(
            path,
            f"host {triple} is of another architecture than the target's {target.triple}",
            why=f"the target's CPU, {target.cpu}, does not exist there",
            fix='write host = { triple = "…", cpu = "…" }, or a target of your own in targets/',
        )
        return target
    cpu = target.cpu if host.cpu is None else host.cpu
    if host.features is not None:
        features = tuple(host.features)
        for index, feature in enumerate(features):
            if not re.fullmatch(r"[+-][A-Za-z0-9._-]+", feature):
                problems.add(
                    (*path, "features", index), f"'{feature}' is not a CPU feature", fix='write "+name" or "-name"'
                )
    else:
        # The features of a CPU belong to it; another CPU has its own.
        features = target.cpu_features if host.cpu is None else ()
    return replace(target, triple=triple, cpu=cpu, cpu_features=features)


def _with_device(target: Target, table: PlatformTable, path: KeyPath, problems: Problems) -> Target:
    if table.device is None:
        return target
    device: dict[str, Json] = {key: value for key, value in table.device.items() if key != "archs"}
    archs = _archs(target, table.device)
    kind = target.device["kind"]
    if device.get("kind", kind) != kind:
        problems.add(
            (*path, "kind"),
            f"the device of target '{target.name}' is {kind}; a platform cannot make it {device['kind']}",
            fix=f"name a target for {device['kind']} (`llmbuild targets` lists them), or write one in targets/",
        )
        return target
    changed = replace(target, device={**target.device, **device}, archs=archs)
    for key, what, fix in device_errors(changed.device, changed.archs):
        problems.add((*path, key), what, fix=fix)
    return changed


def _archs(target: Target, device: Mapping[str, bool | int | str | list[str]]) -> tuple[str, ...]:
    """The architectures of a platform; TVM's attribute `arch`, which names a single one, suffices."""
    archs = device.get("archs")
    if isinstance(archs, str):
        return (archs,)
    if isinstance(archs, list):
        return tuple(archs)
    arch = device.get("arch", device.get("mcpu"))
    return (arch,) if isinstance(arch, str) and target.archs else target.archs


def _opt(table: PlatformTable, target: Target, path: KeyPath, problems: Problems) -> Opt | None:
    if problems.is_broken(path):
        return None
    if isinstance(table.opt, OptTable):
        given = table.opt.model_dump(exclude_none=True, exclude={"level"}, by_alias=False)
        return make_opt(table.opt.level or DEFAULT_LEVEL, given)
    try:
        if table.opt is not None:
            return parse_opt(table.opt)
        return parse_opt(target.opt or DEFAULT_LEVEL)
    except ValueError as error:
        if table.opt is not None:
            problems.add(path, str(error))
        else:
            where = f"{_file(target)}: defaults.opt"
            problems.add_error(path, UsageError(str(error), where=where))
        return None


def _artifact(table: PlatformTable, target: Target, path: KeyPath, problems: Problems) -> str | None:
    artifact = table.artifact or target.artifact
    if artifact not in target.artifacts:
        problems.add(
            path,
            f"target '{target.name}' makes no '{artifact}'",
            fix=f"use one of {', '.join(target.artifacts)}",
        )
        return None
    return artifact


def _metadata(
    table: PlatformTable, path: KeyPath, problems: Problems
) -> tuple[Mapping[str, int], Mapping[str, KeyPath]]:
    """The platform's own sizes from `metadata` and `overrides`, and where each was written."""
    metadata = dict(table.metadata.given())
    paths: dict[str, KeyPath] = {key: (*path, "metadata", key) for key in metadata}
    if table.overrides is None:
        return metadata, paths
    place = (*path, "overrides")
    try:
        overrides = parse_overrides(table.overrides)
    except ValueError as error:
        problems.add(place, str(error))
        return metadata, paths
    for key, value in overrides.items():
        if metadata.get(key, value) != value:
            problems.add(
                place,
                f"{key} is {value} in overrides and {metadata[key]} in metadata",
                fix="keep one of the two",
            )
        metadata[key] = value
        paths.setdefault(key, place)
    return metadata, paths


def _activations(table: PlatformTable, compile_part: Mapping[str, Json], notes: list[str]) -> str | None:
    """How a CPU library rounds the input of products; None for a GPU, whose kernels round nothing."""
    if is_cpu(compile_part):
        return table.activations or "int8x2"
    if table.activations is not None:
        notes.append(f"activations takes no effect on {device_kind(compile_part)}; it is for CPUs")
    return None


def _prefix(
    table: PlatformTable,
    target: Target,
    artifact: str | None,
    path: KeyPath,
    notes: list[str],
    problems: Problems,
) -> str | None:
    """The prefix of a system library, placeholders and all ("" for none); None for a library that is loaded by itself."""
    prefix = table.system_lib_prefix
    wrong = None if prefix is None else wrong_prefix(prefix)
    if wrong is not None:
        problems.add(path, wrong[0], why="every exported symbol begins with it", fix=wrong[1])
        return None
    if artifact in STATIC:
        return target.system_lib_prefix if prefix is None else prefix
    if prefix:
        what = "a shared library" if artifact in SHARED else "a library that its runtime looks for without one"
        notes.append(f'system-lib-prefix takes no effect for {what} ({artifact}); it is for artifact = "tar"')
    return None if artifact in SHARED else ""


def targets_of_tables(
    names: Sequence[str], tables: Mapping[str, PlatformTable], targets: TargetNames
) -> Mapping[str, str]:
    """The target of each [platforms.NAME] table, "" where the table is wrong or names none that exists."""
    return {name: (name in tables and targets.target_of(_wanted(name, tables[name]))) or "" for name in names}


def implicit_platform(name: str) -> PlatformTable:
    """The table of a platform that has none: the target of its name or alias, unchanged."""
    return PlatformTable(target=name)


def uses_this_cpu(target: Target) -> bool:
    """Whether the platform's flags come from the CPU of this machine."""
    return target.cpu == NATIVE
