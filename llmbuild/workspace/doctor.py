"""Whether this machine and a project are fit for a build: each look is one finding, and says what to do.  Nothing is changed but
what `.llmbuild/` remembers of the manifest."""

from __future__ import annotations

import os
import platform
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from llmbuild.errors import LlmbuildError, MultiError, UsageError
from llmbuild.version import __version__
from llmbuild.workspace.place import find_manifest

if TYPE_CHECKING:
    from llmbuild.manifest.project import Project

State: TypeAlias = Literal["ok", "warn", "fail"]

_LITTLE_SPACE, _NO_SPACE = 20 << 30, 1 << 30
"""Bytes of free space below which a 7B model does not fit, and below which nothing does."""
_LITTLE_MEMORY = 4 << 30
"""Bytes below which lowering a small model fails: its peak is half a gigabyte to two."""
_PAIR = re.compile(r"(apache-tvm(?:-ffi)?)==([\w.]+)")


@dataclass(frozen=True, slots=True)
class Finding:
    """What one look found.  `fail`: a build here fails, or one of its tasks; `warn`: it may."""

    name: str
    state: State
    text: str
    fix: str = ""


def examine(file: Path | None, cache: Path | None = None) -> Iterator[Finding]:
    """All findings, each as soon as it is there.  `file` names the manifest, else the usual one counts where there is one;
    `cache` is the directory of the store, None for the user's own."""
    yield _python()
    yield _packages()
    yield from _settings()
    yield from _store(cache)
    yield _memory()
    yield from _places(cache)
    findings, project = _project(file)
    yield from findings
    if project is not None:
        yield _lock(Path(project.file), cache)
    yield from _targets(project)


def _python() -> Finding:
    return Finding("python", "ok", f"Python {platform.python_version()}, llmbuild {__version__}")


def _packages() -> Finding:
    """TVM and its FFI, which are right only together (docs/architecture.md): the pair that llmbuild's own package requires."""
    try:
        requirements = metadata.requires("llmbuild") or ()
    except metadata.PackageNotFoundError:
        return Finding("tvm", "warn", "llmbuild is not installed as a package, so its requirements are unknown")
    pinned = {found[1]: found[2] for text in requirements if (found := _PAIR.match(text)) is not None}
    there: dict[str, str | None] = {}
    for name in pinned:
        try:
            there[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            there[name] = None
    text = ", ".join(f"{name} {version or 'is not installed'}" for name, version in there.items())
    if there == pinned:
        return Finding("tvm", "ok", text)
    right = " ".join(f"{name}=={version}" for name, version in pinned.items())
    return Finding("tvm", "fail", f"{text}; this llmbuild needs {right}", f"pip install {right}")


def _settings() -> Iterator[Finding]:
    """The file of settings, and the variables that stand in for options."""
    from llmbuild.engine.memory import budget
    from llmbuild.engine.settings import default_jobs, read_settings, settings_path
    from llmbuild.variables import flag

    wrong: list[Finding] = []
    looks = (read_settings, default_jobs, budget, partial(flag, "LLMBUILD_OFFLINE"), partial(flag, "LLMBUILD_LOCKED"))
    for look in looks:
        try:
            look()
        except LlmbuildError as error:
            wrong += [one for one in _failed("settings", error) if one not in wrong]
    yield from wrong
    if not wrong:
        path = settings_path()
        where = path if path.exists() else "no file of settings"
        jobs = "1 task" if default_jobs() == 1 else f"{default_jobs()} tasks"
        yield Finding("settings", "ok", f"{where}; {jobs} at a time")


def _store(cache: Path | None) -> Iterator[Finding]:
    from llmbuild.engine.store import Store, default_root
    from llmbuild.report.units import size

    try:
        root = cache or default_root()
        Store(root).close()
    except LlmbuildError as error:
        yield from _failed("store", error)
        return
    # The first build makes the directory.
    there = next(place for place in (root, *root.absolute().parents) if place.exists())
    if not os.access(there, os.W_OK | os.X_OK):
        fix = "the setting cache-dir or LLMBUILD_CACHE names another directory"
        yield Finding("store", "fail", f"{root}: nothing can be written in {there}", fix)
        return
    free = shutil.disk_usage(there).free
    text = f"{root}: {size(free)} free"
    if free < _LITTLE_SPACE:
        fix = "`llmbuild cache gc --max-size SIZE` frees some; the setting cache-dir or LLMBUILD_CACHE moves it"
        yield Finding("store", "fail" if free < _NO_SPACE else "warn", text, fix)
    else:
        yield Finding("store", "ok", text)


def _memory() -> Finding:
    from llmbuild.engine.memory import available
    from llmbuild.report.units import size

    free, cpus = available(), os.cpu_count() or 1
    if free is None:
        return Finding("memory", "warn", "this system does not report its free memory", "give builds --memory SIZE")
    text = f"{size(free)} free, {cpus} CPU{'' if cpus == 1 else 's'}"
    if free < _LITTLE_MEMORY:
        return Finding("memory", "warn", text, "close other programs, and build with --jobs 1")
    return Finding("memory", "ok", text)


def _places(cache: Path | None) -> Iterator[Finding]:
    """Where tasks run and where results come from besides the store."""
    from llmbuild.engine.store import Store
    from llmbuild.executors.named import NamedExecutor
    from llmbuild.remotes.named import named_remote

    try:
        NamedExecutor(Store(cache))
        yield Finding("executor", "ok", os.environ.get("LLMBUILD_EXECUTOR") or "as the settings say, or local")
    except LlmbuildError as error:
        yield from _failed("executor", error)
    try:
        remote = named_remote()
        yield Finding("remote", "ok", remote.name if remote is not None else "no other cache")
    except LlmbuildError as error:
        yield from _failed("remote", error)


def _project(file: Path | None) -> tuple[list[Finding], Project | None]:
    """What was found about the manifest, and its project where it can be read."""
    from llmbuild.manifest.load import load_project

    try:
        manifest = find_manifest(file)
    except UsageError as error:
        if file is not None:
            return _failed("manifest", error), None
        return [Finding("manifest", "ok", "none here", "`llmbuild init` writes one")], None
    try:
        project = load_project(manifest)
    except LlmbuildError as error:
        return _failed("manifest", error), None
    cells = len(project.matrix)
    return [Finding("manifest", "ok", f"{manifest}: {cells} librar{'y' if cells == 1 else 'ies'}")], project


def _lock(manifest: Path, cache: Path | None) -> Finding:
    """Whether the lock file says what the manifest and this machine do; no source is asked over the network."""
    from llmbuild.manifest.lock import LOCK_FILE
    from llmbuild.workspace.options import ALL, Options
    from llmbuild.workspace.workspace import Workspace

    if not manifest.with_name(LOCK_FILE).is_file():
        return Finding("lock", "warn", f"there is no {LOCK_FILE}", "`llmbuild lock` pins the sources and the tools")
    try:
        with Workspace.open(manifest, ALL, Options(cache, offline=True, locked=True)) as workspace:
            workspace.look(partial=True)
    except LlmbuildError as error:
        return replace(_failed("lock", error)[0], state="warn")
    return Finding("lock", "ok", "up to date")


def _targets(project: Project | None) -> Iterator[Finding]:
    """Of a manifest's platforms each one; else of all targets those that can be built for, and what the others lack."""
    from llmbuild.workspace.targets import examine_targets

    wanted: dict[str, list[str]] = {}
    if project is not None:
        for name in dict.fromkeys(cell.platform for cell in project.matrix):
            one = project.platforms[name]
            wanted.setdefault(one.target, []).append(one.artifact)
    ready = []
    try:
        found = examine_targets(tuple(wanted), None if project is None else Path(project.file))
    except LlmbuildError as error:
        yield from _failed("targets", error)
        return
    for item in found:
        artifacts = wanted.get(item.target.name, [item.target.artifact])
        if set(artifacts) <= set(item.ready):
            ready.append(item.target.name)
            continue
        first = item.missing[0]
        yield Finding(item.target.name, "fail" if wanted else "warn", first.what, first.fix or "")
    if ready:
        yield Finding("targets", "ok", f"{len(ready)} of {len(found)} ready: {', '.join(ready)}")


def _failed(name: str, error: LlmbuildError) -> list[Finding]:
    return [
        Finding(name, "fail", ": ".join(part for part in (one.where, one.what, one.why) if part), one.fix or "")
        for one in (error.errors if isinstance(error, MultiError) else (error,))
    ]
