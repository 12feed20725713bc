"""Pinning every source and the toolchain of a manifest in llmbuild.lock."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmbuild.engine.kind import no_progress
from llmbuild.errors import ToolchainError, UsageError, did_you_mean, raise_all
from llmbuild.manifest.lock import LOCK_FILE, Lock, write_lock
from llmbuild.manifest.lockdiff import differences
from llmbuild.sources.remote import AnnouncedKind, Download
from llmbuild.workspace import locking, manifests
from llmbuild.workspace.neighbours import Neighbours, neighbours
from llmbuild.workspace.observe import expand_world, observe_world
from llmbuild.workspace.platform_tools import Machine
from llmbuild.workspace.trust import Trust

if TYPE_CHECKING:
    from llmbuild.canonical import Digest
    from llmbuild.engine.store import Store
    from llmbuild.engine.task import Task
    from llmbuild.manifest.lockdiff import LockDifference
    from llmbuild.manifest.project import Project
    from llmbuild.plan.observed import Observed
    from llmbuild.workspace.locking import Fetch
    from llmbuild.workspace.options import OnNote
    from llmbuild.workspace.reporter import OnEvent
    from llmbuild.workspace.tool_identities import Toolchain


@dataclass(frozen=True, slots=True)
class LockOutcome:
    """What changed in the lock file at `path`, or would: `differences` between its content and the `lock` that is needed.
    `existed` is true where the file was there before; `users` has the models by the keys of their sources."""

    path: Path
    lock: Lock
    differences: tuple[LockDifference, ...]
    existed: bool
    users: Mapping[str, Sequence[str]]

    @property
    def stale(self) -> bool:
        """Whether the file was missing or out of date."""
        return bool(self.differences) or not self.existed


def pin(
    project: Project,
    store: Store,
    toolchain: Toolchain,
    trust: Trust,
    *,
    upgrade: bool | Sequence[str] = (),
    check: bool = False,
    offline: bool = False,
    on_event: OnEvent,
    on_note: OnNote,
) -> LockOutcome:
    """Pin in the lock file what is not pinned yet, and resolve the sources of the models to `upgrade` again (True for all);
    with `check` nothing is written.

    Raises UsageError for a model that is in no build or a file that is no lock; LlmbuildError where a source is missing or
    cannot be fetched.
    """
    models = _models(upgrade, project)
    old = locking.load_lock(Path(project.root), toolchain)
    new = old.copy()
    upgraded = [
        fetch for fetch in locking.fetches(project) if fetch.model in models or (fetch.package and upgrade is True)
    ]
    for fetch in upgraded:
        if isinstance(fetch.kind, AnnouncedKind) or not check:
            new.forget(fetch.key)
    others = neighbours(project, toolchain)
    kept = _kept_keys(project, others)
    _prune(new, kept)
    resolve = not check or bool(models)
    # One machine rarely has the tools of every platform, and a lock is for all of them: a missing tool is no error.
    observed = observe_world(project, store, toolchain, new, trust, offline=offline, resolve=resolve)
    raise_all(list(observed.gone.values()))
    if check:
        new = locking.required_lock(project, observed, new)
        _keep_others(new, old, kept)
    else:
        labels = {fetch.label for fetch in upgraded}
        _pin_all(project, observed, store, new, labels, offline=offline, on_event=on_event)
        new.toolchain = locking.toolchain_of(project, observed)
    _keep_tools(new, old, project, Machine(toolchain, trust), on_note)
    _keep_targets(new, old, project)
    _keep_tools_of(others, new, old, project)
    path = Path(project.root) / LOCK_FILE
    found = differences(old, new)
    exists = path.exists()
    if not check and (old.changed or new.to_toml() != old.to_toml() or not exists):
        write_lock(path, new)
    return LockOutcome(path, new, tuple(found), exists, locking.models_by_key(project))


def _models(asked: bool | Sequence[str], project: Project) -> set[str]:
    """The models to upgrade.  Raises UsageError for one that is in no build."""
    known = list(dict.fromkeys(fetch.model for fetch in locking.fetches(project) if fetch.model))
    if isinstance(asked, bool):
        return set(known) if asked else set()
    for name in asked:
        if name not in known:
            raise UsageError(
                f"there is no model '{name}' with a source in a build",
                where=project.file,
                fix=did_you_mean(name, known) or f"the models are: {', '.join(known)}",
            )
    return set(asked)


def _kept_keys(project: Project, others: Neighbours) -> Collection[str] | None:
    """The keys whose pins are kept: of all models of this manifest and of the others in its directory, those in no build
    included.  None where a manifest cannot be read, because any pin may be one of its own."""
    from llmbuild.sources import lock_key

    if not others.all_read:
        return None
    keys = set[str]()
    for model in (model for one in (project, *others.projects) for model in one.models.values()):
        if model.source is not None:
            keys.add(lock_key(model.source, model.source_format))
        if model.adapter is not None:
            keys.add(lock_key(model.adapter))
    packages = (package for one in (project, *others.projects) for package in one.packages.values())
    keys |= {lock_key(source) for package in packages for source in package.sources.values()}
    return keys


def _prune(lock: Lock, kept: Collection[str] | None) -> None:
    """Drop the pins of sources that are in no manifest any more."""
    for key in [key for key in lock.sources if kept is not None and key not in kept]:
        lock.forget(key)


def _keep_others(new: Lock, old: Lock, kept: Collection[str] | None) -> None:
    for key, pin in old.sources.items():
        if key not in new.sources and (kept is None or key in kept):
            new.sources[key] = pin


def _keep_tools_of(others: Neighbours, new: Lock, old: Lock, project: Project) -> None:
    """Keep the lock's tools of platforms that only other manifests build for."""
    from llmbuild.plan.observed import DEVICE_TOOL

    own = {cell.platform for cell in project.matrix}
    theirs = {cell.platform for other in others.projects for cell in other.matrix} - own
    for name, identity in old.toolchain.items():
        tool, _, platform = name.rpartition(" ")
        other = tool in ("linker", DEVICE_TOOL, locking.TARGET) and bool(platform) and platform not in own
        if other and (platform in theirs or not others.all_read):
            new.toolchain[name] = identity


def _keep_targets(new: Lock, old: Lock, project: Project) -> None:
    """Keep the platforms of patterns that another machine can build, and this one cannot."""
    for name in dict.fromkeys(cell.platform for cell in project.matrix if cell.by_pattern):
        entry = f"{locking.TARGET} {name}"
        if entry in old.toolchain:
            new.toolchain.setdefault(entry, project.platforms[name].target)


def _keep_tools(new: Lock, old: Lock, project: Project, machine: Machine, on_note: OnNote) -> None:
    """Keep the lock's tools of platforms that are not on this machine or not trusted, and note each."""
    absent: dict[tuple[str, str], list[str]] = {}
    for name in dict.fromkeys(cell.platform for cell in project.matrix):
        for tool, error in machine.absent(project.platforms[name]):
            kept = old.toolchain.get(f"{tool} {name}")
            if kept is not None:
                new.toolchain[f"{tool} {name}"] = kept
            missing = "it is not on this machine: " if isinstance(error, ToolchainError) else ""
            why = f"{'not recorded' if kept is None else 'kept as it was locked'}, {missing}{error.what}"
            absent.setdefault((tool, f"{why} ({error.fix})" if error.fix else why), []).append(name)
    for (tool, why), names in absent.items():
        on_note(f"the {tool} of {', '.join(names)} is {why}")


def _pin_all(
    project: Project,
    observed: Observed,
    store: Store,
    lock: Lock,
    upgraded: set[str],
    *,
    offline: bool,
    on_event: OnEvent,
) -> None:
    """Pin the SHA-256 and size of every file in the lock.

    Local files are hashed in place.  Weights of a hub are pinned by the digests that the hub announces; its small files are
    downloaded, and so are packages and archives, which show their files only then.  The store keeps all downloads.
    """
    from llmbuild.sources.pins import complete

    tasks = {task.label: task for task in expand_world(project, observed)}
    required = locking.required_lock(project, observed, lock)
    needed: list[Fetch] = []
    for fetch in locking.fetches(project):
        pin = required.sources[fetch.key]
        if not fetch.kind.remote:
            lock.put(fetch.key, pin)
        elif isinstance(fetch.kind, AnnouncedKind):
            lock.put(fetch.key, _announced_pin(fetch, fetch.kind, tasks[fetch.label], pin, store, offline=offline))
        elif not complete(fetch.pin(lock)):
            needed.append(fetch)
    if not needed:
        return
    remotes = locking.remote_fetches(project, lock, store, [tasks[fetch.label] for fetch in needed])
    if offline:
        locking.require_offline(remotes)
    # An index can replace the files of a version: an upgrade resolves it again.  A URL's SHA-256 is in the manifest.
    force = {fetch.label for fetch in needed if fetch.label in upgraded and not fetch.kind.fixed}
    found = _fetch(project, store, [tasks[fetch.label] for fetch in needed], set() if offline else force, on_event)
    for fetch in needed:
        observation = fetch.observation(observed)
        assert observation is not None
        pin = fetch.kind.fetched_pin(fetch.source.spec, observation.params, None, found[fetch.label])
        lock.put(fetch.key, pin)


def _announced_pin(
    fetch: Fetch, kind: AnnouncedKind, task: Task, pin: Mapping[str, Any], store: Store, *, offline: bool
) -> Mapping[str, Any]:
    """The pin with the SHA-256 of all files of a source whose origin announces them.  It is taken from what was fetched
    before; files that are announced without it are downloaded."""
    from llmbuild.engine.bind import bind
    from llmbuild.engine.lookup import Cached, lookup
    from llmbuild.sources.pins import complete

    if complete(pin):
        return pin
    before = lookup(store, bind(task, {}, store.cas.get_bytes).action.digest)
    if isinstance(before, Cached):
        return kind.fetched_pin(fetch.source.spec, task.params, pin, locking.tree_files(before.tree))
    if offline:
        from llmbuild.errors import FetchError

        raise FetchError(
            "its small files have to be downloaded, and --offline forbids it",
            where=f"{fetch.label}: {fetch.key}",
            why="the lock file does not have the SHA-256 of all of them, and they are not in the cache",
            fix="run `llmbuild lock` once with a network",
        )
    identity: Any = task.params["source"]
    scratch = store.new_scratch_dir("lock")
    # Small files take no time worth showing.
    what = Download(identity, {}, pin, store.cas.root, store.root / "partial", scratch, scratch, no_progress)
    return kind.complete_pin(what, lambda path: store.cas.put_file(path, move=True))


def _fetch(
    project: Project, store: Store, tasks: Sequence[Task], force: set[str], on_event: OnEvent
) -> dict[str, dict[str, tuple[Digest, int]]]:
    """Run fetch tasks; their files by label.  Raises the error of the first one that failed."""
    from llmbuild.engine.scheduler import Scheduler
    from llmbuild.executors.named import NamedExecutor

    known_as = manifests.identity(project)
    scheduler = Scheduler(store, NamedExecutor(store), jobs=2, force=force, project=known_as, emit=on_event)
    found = {}
    for label, outcome in scheduler.run(tasks).outcomes.items():
        if outcome.failure is not None:
            raise outcome.failure.to_error()
        assert outcome.tree is not None
        found[label] = locking.tree_files(outcome.tree)
    return found
