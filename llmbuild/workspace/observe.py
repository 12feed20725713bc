"""Observing the world for a plan: sources, tools and linkers; then the tasks.

This part of planning reads the disk.  Where nothing changed it costs a stat for each file that matters.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from llmbuild.canonical import Digest, Json, digest_json
from llmbuild.engine.kind import TaskKind
from llmbuild.engine.labels import make_label
from llmbuild.engine.registry import KIND_NAMES, load_kind
from llmbuild.engine.statcache import Anew
from llmbuild.engine.store import Store
from llmbuild.engine.task import Task
from llmbuild.errors import LlmbuildError, MultiError, ToolchainError, raise_all
from llmbuild.manifest.lock import Lock
from llmbuild.manifest.measuring import CALIBRATING, calibrates_here
from llmbuild.manifest.project import Package, Project
from llmbuild.plan.graph import expand, labels
from llmbuild.plan.maker import WITH_RUNTIME
from llmbuild.plan.measuring import calibrating_labels, measures, measuring_labels
from llmbuild.plan.observed import Observed
from llmbuild.plan.packages import package_labels
from llmbuild.plan.select import asked_labels
from llmbuild.sources.kind import GoneError, Observation, Source
from llmbuild.workspace.absent import LockedTools
from llmbuild.workspace.architectures import own_architectures
from llmbuild.workspace.manifests import identity, place_of
from llmbuild.workspace.options import OnNote
from llmbuild.workspace.patterns import without_unbuildable
from llmbuild.workspace.platform_tools import Machine, find_tools
from llmbuild.workspace.refusals import keep_description, refuses
from llmbuild.workspace.texts import observe_texts
from llmbuild.workspace.tool_identities import Toolchain
from llmbuild.workspace.trust import Trust

if TYPE_CHECKING:
    from llmbuild.engine.lack import Lack


@dataclass(frozen=True, slots=True)
class World:
    """What was observed for a project, the tasks that follow from it, and the lock file that it was compared with.

    `unpinned` are packages that are no part of `project`: no task of theirs was asked for, and they have sources that no lock
    pins, for which a registry would have to be asked.
    """

    project: Project
    observed: Observed
    tasks: tuple[Task, ...]
    lock: Lock
    unpinned: tuple[Package, ...] = ()


def look(
    project: Project,
    store: Store,
    toolchain: Toolchain,
    trust: Trust,
    names: Sequence[str],
    *,
    offline: bool = False,
    locked: bool = False,
    on_note: OnNote,
) -> World:
    """Observe what the cells of the project's matrix need, and the packages of which the `names` ask for a task or whose sources
    are pinned, and expand them.  Platforms of patterns that this machine cannot build are left out, with a note.

    Raises UsageError for a name that no task has; a MultiError with all sources that are missing and were never pinned; when
    `locked`, UsageError where the lock file does not match what was observed.  Otherwise the commits of new revisions
    are pinned in the lock file.
    """
    from llmbuild.workspace import locking

    root = Path(project.root)
    lock = locking.load_lock(root, toolchain)
    asked = asked_labels(sorted(labels(project) | measuring_labels(project)), names)
    measured = frozenset(label for label in asked if measures(label))
    project, unpinned = _without_unpinned(project, lock, asked)
    observed = observe_world(
        project,
        store,
        toolchain,
        lock,
        trust,
        offline=offline,
        resolve=not locked,
        anew=locked,
        measuring=bool(measured) or bool(calibrating_labels(project)),
    )
    project = without_unbuildable(project, observed, lock if locked else None, on_note)
    if locked:
        locking.require_locked(project, observed, lock)
    elif lock.changed:
        from llmbuild.manifest.lock import LOCK_FILE, write_lock

        write_lock(root / LOCK_FILE, lock)
    return World(project, observed, expand_world(project, observed, measured), lock, unpinned)


def _without_unpinned(project: Project, lock: Lock, asked: frozenset[str]) -> tuple[Project, tuple[Package, ...]]:
    """The project without the packages that are in the second part (`World.unpinned`); tasks with the labels `asked` are."""
    from llmbuild.sources.remote import AnnouncedKind
    from llmbuild.workspace.locking import fetches

    open_sources = {
        fetch.package
        for fetch in fetches(project)
        if fetch.package and isinstance(fetch.kind, AnnouncedKind) and fetch.pin(lock) is None
    }
    out = {
        name: package
        for name, package in project.packages.items()
        if name in open_sources and asked.isdisjoint(package_labels(package))
    }
    kept = {name: package for name, package in project.packages.items() if name not in out}
    return dataclasses.replace(project, packages=kept), tuple(out.values())


def observe_world(
    project: Project,
    store: Store,
    toolchain: Toolchain,
    lock: Lock,
    trust: Trust,
    *,
    offline: bool = False,
    resolve: bool = True,
    anew: bool = False,
    measuring: bool = False,
) -> Observed:
    """Observe sources, tools and linkers.  Without `resolve` no revision is resolved at a hub, and sources that the lock does
    not pin are skipped; with `anew` local files are hashed even where their digests are cached; with `measuring` also the
    tools of what measures.  Raises a MultiError with all
    that is missing and that tasks of every platform need; commits of new revisions are pinned in `lock`.
    """
    # The runtime of browsers is built for them alone, and its sources are many files to observe.
    browsers = any(project.platforms[cell.platform].artifact in WITH_RUNTIME for cell in project.matrix)
    others = {*(() if browsers else ("runtime",)), *(() if measuring else ("text", "calibrate"))}
    kinds = {name: load_kind(name) for name in KIND_NAMES if name not in others}
    errors: list[LlmbuildError] = []
    gone: dict[str, LlmbuildError] = {}
    sources, adapters, presets, of_packages = _sources(project, store, lock, offline, resolve, anew, errors, gone)
    tools, source_files = _tools(kinds, toolchain, errors)
    families, every_family = _families(toolchain, source_files)
    package_kinds = _package_kinds(project, toolchain, source_files)
    types = _types(presets, toolchain, every_family)
    architectures = own_architectures(project, toolchain, trust)
    # The memo of what was asked so far is written there.
    platforms = [project.platforms[name] for name in dict.fromkeys(cell.platform for cell in project.matrix)]
    if measuring:
        platforms += [one for one in (project.measuring, project.calibrating) if one is not None]
    of_platforms = find_tools(platforms, Machine(toolchain, trust), LockedTools(lock, store, identity(project)))
    raise_all(errors)
    return Observed(
        sources,
        tools,
        of_platforms.linkers,
        adapters,
        presets,
        source_files,
        of_platforms.devices,
        of_platforms.variables,
        {**of_platforms.lacks, CALIBRATING: {**of_platforms.lacks.get(CALIBRATING, {}), **_not_calibrating()}},
        gone,
        families,
        every_family,
        types,
        architectures,
        of_packages,
        package_kinds,
        observe_texts(project, store.stat_cache) if measuring else {},
    )


def _not_calibrating() -> Mapping[str, Lack]:
    """What a machine lacks that cannot run a library with taps, by kind of task."""
    if calibrates_here():
        return {}
    from llmbuild.engine.lack import Lack

    error = ToolchainError(
        "this machine cannot calibrate weights",
        why="statistics are collected by a library for x86-64 under Linux, so that they are the same on every machine",
        fix="build once on such a machine with a cache that both share (--remote), or carry its results: `llmbuild cache export`",
    )
    return {"calibrate": Lack((error,))}


def expand_world(project: Project, observed: Observed, measured: Iterable[str] = ()) -> tuple[Task, ...]:
    """The tasks of a project whose sources were all observed, and the `measured` of those that measure."""
    from llmbuild.tasks.lower import COMPILE_FIELDS

    return expand(project, observed, {name: load_kind(name) for name in KIND_NAMES}, COMPILE_FIELDS, measured)


def _sources(
    project: Project,
    store: Store,
    lock: Lock,
    offline: bool,
    resolve: bool,
    anew: bool,
    errors: list[LlmbuildError],
    gone: dict[str, LlmbuildError],
) -> tuple[dict[str, Observation], dict[str, Observation], dict[str, Mapping[str, Json]], dict[str, Observation]]:
    """Sources and adapters by model, the configurations of presets, and the sources of packages by their fetch task."""
    sources: dict[str, Observation] = {}
    adapters: dict[str, Observation] = {}
    presets: dict[str, Mapping[str, Json]] = {}
    of_packages: dict[str, Observation] = {}

    def observe(
        found: dict[str, Observation], name: str, source: Source, label: str, source_format: str | None = None
    ) -> None:
        from llmbuild.sources import lock_key
        from llmbuild.sources import observe as observe_source
        from llmbuild.sources.kinds import source_kind

        sent: list[Mapping[str, bytes]] = []

        def refused(description: Mapping[str, bytes]) -> bool:
            if found is not sources or not refuses(project.models[name], description):
                return False
            sent.append(description)
            return True

        pin = lock.get(lock_key(source, source_format))
        if pin is None and not resolve:
            from llmbuild.sources.remote import AnnouncedKind

            if isinstance(source_kind(source.kind), AnnouncedKind):
                return
        try:
            found[name] = observe_source(
                source,
                Path(project.root),
                Anew(store.stat_cache) if anew else store.stat_cache,
                lock,
                source_format=source_format,
                offline=offline,
                partial=store.root / "partial",
                have=store.cas.root,
                manifest=Path(project.root) / Path(project.file).name,
                refused=refused,
            )
            for description in sent:
                keep_description(store, found[name], description)
        except GoneError as error:
            # What was built from it remains valid.
            remembered = source_kind(source.kind).remembered(source.spec, Path(project.root), pin)
            if remembered is None:
                raise
            found[name] = remembered
            gone[label] = GoneError(
                f"source gone: {_written(project, source, error.where)}",
                why=error.why,
                fix=error.fix or "put it back; what was built of it stays as it is",
            )

    for name in dict.fromkeys(cell.model for cell in project.matrix):
        model = project.models[name]
        try:
            if model.preset is not None:
                from llmbuild.models.presets import preset

                presets[name] = preset(model.preset)
            elif model.source is not None:
                with _as_written(project, model.source, ("models", name, "source")):
                    observe(sources, name, model.source, make_label("fetch", name), model.source_format)
                if model.adapter is not None:
                    with _as_written(project, model.adapter, ("models", name, "adapter")):
                        observe(adapters, name, model.adapter, make_label("fetch", name, "adapter"))
        except MultiError as error:
            errors += error.errors
        except LlmbuildError as error:
            errors.append(error)
    for package in project.packages.values():
        for key, source in package.sources.items():
            label = make_label("fetch", package.name, key)
            try:
                with _as_written(project, source, ("package", package.name, key)):
                    observe(of_packages, label, source, label)
            except LlmbuildError as error:
                errors.append(error)
    return sources, adapters, presets, of_packages


@contextmanager
def _as_written(project: Project, source: Source, key: tuple[str, ...]) -> Iterator[None]:
    """Name in errors the key of the manifest that asks for a source; a local one is named as the manifest writes it, in the
    place of where it was found."""
    from llmbuild.sources.kinds import source_kind
    from llmbuild.sources.local import LocalKind

    try:
        yield
    except LlmbuildError as error:
        kind = source_kind(source.kind)
        for one in error.errors if isinstance(error, MultiError) else (error,):
            if isinstance(kind, LocalKind):
                _name_local(project, source, key, one)
            else:
                place = str(place_of(project, key))
                one.where = place if one.where is None else f"{place}: {one.where}"
        raise


def _written(project: Project, source: Source, where: str | None) -> str | None:
    """A place as the manifest writes it, where it is that of a local source or of a file in it."""
    from llmbuild.sources.kinds import source_kind
    from llmbuild.sources.local import LocalKind, place

    kind = source_kind(source.kind)
    if where is None or not isinstance(kind, LocalKind):
        return where
    found = str(place(Path(project.root), source.spec))
    return kind.written(source.spec, where[len(found) + 1 :]) if f"{where}/".startswith(f"{found}/") else where


def _name_local(project: Project, source: Source, key: tuple[str, ...], error: LlmbuildError) -> None:
    """A local source that is missing is reported at its key, with what may have been meant; its files by the manifest's path."""
    from llmbuild.manifest.typed import hub_form
    from llmbuild.pathtext import advice
    from llmbuild.sources.local import MISSING

    text = source.spec["path"]
    error.where = _written(project, source, error.where)
    if error.what == MISSING:
        hub = None if (Path(project.root) / text.partition("/")[0]).is_dir() else hub_form(text)
        error.what, error.where = f"'{error.where}' does not exist", str(place_of(project, key))
        error.fix = advice(text) or error.fix or f"put it there, or write {hub or 'hf:org/name'} for the hub's"


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


def _families(toolchain: Toolchain, source_files: dict[Digest, dict[str, Digest]]) -> tuple[dict[str, Digest], Digest]:
    """The digest of each family's own sources by its model type, and that over all; their files are added to `source_files`."""
    families: dict[str, Digest] = {}
    every: dict[str, Digest] = {}
    for module, listed in toolchain.families.items():
        # A model type has dashes where the name of its module cannot.
        families[module] = families[module.replace("_", "-")] = digest_json(listed)
        source_files[families[module]] = listed
        every |= listed
    source_files[digest_json(every)] = every
    return families, digest_json(every)


def _package_kinds(
    project: Project, toolchain: Toolchain, source_files: dict[Digest, dict[str, Digest]]
) -> dict[str, Digest]:
    """The digest of the sources of each kind of package that the project has; their files are added to `source_files`."""
    digests: dict[str, Digest] = {}
    for kind in dict.fromkeys(package.kind for package in project.packages.values()):
        listed = toolchain.package_kinds[kind]
        digests[kind] = digest_json(listed)
        source_files[digests[kind]] = listed
    return digests


def _types(presets: Mapping[str, Mapping[str, Json]], toolchain: Toolchain, families: Digest) -> dict[str, str]:
    """The model types of presets, which are asked of the families once for each content of both."""

    def ask(config: Mapping[str, Json]) -> Json:
        from llmbuild.models.registry import infer_model_type

        try:
            return infer_model_type(config)
        except LlmbuildError:
            # The task that configures the model says why.
            return None

    found = {
        name: toolchain.programs.remembered(["type", dict(config), families], partial(ask, config))
        for name, config in presets.items()
    }
    return {name: model_type for name, model_type in found.items() if isinstance(model_type, str)}
