"""Looking at the world for a plan: the project (cached), sources, tools and linkers; then the tasks.

This is the part of planning that reads the disk.  Where nothing changed it costs a stat for each file that matters and
imports neither pydantic nor tomllib: the expanded manifest is kept in `.llmbuild/`, with what it was made from.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from llmbuild.canonical import Digest, Json, canonical_json, digest_json
from llmbuild.cli.common import STATE_DIR
from llmbuild.cli.toolchain import Toolchain
from llmbuild.engine import files
from llmbuild.engine.store import Store
from llmbuild.engine.task import Task
from llmbuild.errors import LlmbuildError, MultiError, StoreError
from llmbuild.manifest.reads import Read, all_current
from llmbuild.manifest.resolved import Project, Source
from llmbuild.plan.graph import expand
from llmbuild.plan.observed import Observation, Observed
from llmbuild.tasks.kind import TaskKind
from llmbuild.tasks.registry import KIND_NAMES, load_kind

_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Manifest:
    """A loaded manifest; `notes` are worth saying once, when it was read anew."""

    project: Project
    notes: tuple[str, ...] = ()

    @property
    def root(self) -> Path:
        return Path(self.project.root)


def load_manifest(path: Path, toolchain: Toolchain) -> Manifest:
    """The project of a manifest: from the cache when nothing it was made from changed, else by reading it.

    The cache counts only for the same llmbuild (by content), Python and place.  Raises what `manifest.load.load` does.
    """
    root = path.absolute().parent
    place = root / STATE_DIR / f"project-{digest_json(path.name)[:16]}.json"
    key = digest_json(
        {
            "format": _FORMAT,
            "file": str(path),
            "root": str(root),
            "llmbuild": digest_json(toolchain.source_files(["llmbuild"])),
            "python": sys.version,
        }
    )
    project = _cached_project(place, key)
    if project is not None:
        return Manifest(project)
    from llmbuild.manifest.load import load

    loaded = load(path)
    value: dict[str, Json] = {"key": key, "reads": [read.to_json() for read in loaded.reads], "project": loaded.project.to_json()}
    _write_quietly(place, canonical_json(value))
    # What a first run reads and what a later run takes from the cache has to be the same down to tuples and lists.
    return Manifest(Project.from_json(json.loads(canonical_json(loaded.project.to_json()))), loaded.notes)


def _cached_project(place: Path, key: Digest) -> Project | None:
    try:
        value = json.loads(place.read_bytes())
        if value["key"] != key or not all_current(Read.from_json(read) for read in value["reads"]):
            return None
        return Project.from_json(value["project"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _write_quietly(place: Path, data: bytes) -> None:
    """A project directory that cannot be written costs the cache and nothing else; a build will say what is wrong."""
    with contextlib.suppress(StoreError, OSError):
        place.parent.mkdir(parents=True, exist_ok=True)
        files.write_atomic(place, data)


@dataclass(frozen=True, slots=True)
class World:
    """What was observed for a project, and the tasks that follow from it."""

    project: Project
    observed: Observed
    tasks: tuple[Task, ...]


def look(project: Project, store: Store, toolchain: Toolchain, *, offline: bool = False) -> World:
    """Observe what the cells of the project's matrix need and expand them.

    Raises a MultiError with all sources, tools and linkers that are missing; pins of new remote sources are written to
    the lock file.
    """
    from llmbuild.tasks.lower import COMPILE_FIELDS

    kinds = {name: load_kind(name) for name in KIND_NAMES}
    errors: list[LlmbuildError] = []
    sources, adapters, presets = _sources(project, store, offline, errors)
    tools, source_files = _tools(kinds, toolchain, errors)
    linkers = _linkers(project, errors)
    if errors:
        raise errors[0] if len(errors) == 1 else MultiError(errors)
    observed = Observed(sources, tools, linkers, adapters, presets, source_files)
    return World(project, observed, expand(project, observed, kinds, COMPILE_FIELDS))


def _sources(
    project: Project, store: Store, offline: bool, errors: list[LlmbuildError]
) -> tuple[dict[str, Observation], dict[str, Observation], dict[str, Mapping[str, Json]]]:
    from llmbuild.manifest.lock import LOCK_FILE, read_lock, write_lock

    sources: dict[str, Observation] = {}
    adapters: dict[str, Observation] = {}
    presets: dict[str, Mapping[str, Json]] = {}
    root = Path(project.root)
    lock = read_lock(root / LOCK_FILE)

    def observe(source: Source, source_format: str | None) -> Observation:
        from llmbuild.sources import observe as observe_source

        params, hints = observe_source(
            source,
            root,
            store.stat_cache,
            lock,
            source_format=source_format,
            offline=offline,
            partial=store.root / "partial",
        )
        return Observation(params, hints)

    for name in dict.fromkeys(cell.model for cell in project.matrix):
        model = project.models[name]
        try:
            if model.source.kind == "preset":
                from llmbuild.models.presets import preset

                presets[name] = preset(model.source.spec["name"])
            else:
                sources[name] = observe(model.source, model.source_format)
                if model.adapter is not None:
                    adapters[name] = observe(model.adapter, None)
        except MultiError as error:
            errors += error.errors
        except LlmbuildError as error:
            errors.append(error)
    if lock.changed:
        write_lock(root / LOCK_FILE, lock)
    return sources, adapters, presets


def _tools(
    kinds: Mapping[str, TaskKind], toolchain: Toolchain, errors: list[LlmbuildError]
) -> tuple[dict[str, dict[str, str]], dict[Digest, dict[str, Digest]]]:
    tools: dict[str, dict[str, str]] = {}
    source_files: dict[Digest, dict[str, Digest]] = {}
    for name, kind in kinds.items():
        try:
            tools[name], listed = toolchain.tools_of(kind)
            source_files[digest_json(listed)] = listed
        except LlmbuildError as error:
            errors.append(error)
    return tools, source_files


def _linkers(project: Project, errors: list[LlmbuildError]) -> dict[str, str]:
    from llmbuild import linkers

    found: dict[str, str] = {}
    known: dict[Digest, str] = {}
    for name in dict.fromkeys(cell.platform for cell in project.matrix):
        platform = project.platforms[name]
        key = digest_json([platform.artifact, platform.link])
        try:
            if key not in known:
                known[key] = linkers.identity(platform.link, platform.artifact)
            found[name] = known[key]
        except LlmbuildError as error:
            if str(error) not in map(str, errors):
                errors.append(error)
    return found
