"""`llmbuild lock`: resolve every source to digests and write llmbuild.lock."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmbuild.cli.common import add_file, print_note
from llmbuild.errors import ExitCode, UsageError, did_you_mean
from llmbuild.workspace.place import find_manifest

if TYPE_CHECKING:
    from llmbuild.canonical import Digest
    from llmbuild.engine.store import Store
    from llmbuild.engine.task import Task
    from llmbuild.manifest.lock import Lock
    from llmbuild.manifest.lockdiff import Difference
    from llmbuild.manifest.resolved import Project
    from llmbuild.plan.observed import Observed
    from llmbuild.workspace.locking import Fetch
    from llmbuild.workspace.neighbours import Neighbours
    from llmbuild.workspace.toolchain import Toolchain

HELP = "pin every source and the toolchain in llmbuild.lock"
EXAMPLE = """llmbuild lock                     # pin what is not pinned yet
  llmbuild lock --upgrade smollm2   # move one model to what its revision is now
  llmbuild lock --upgrade --check   # only show what an upgrade would change
  llmbuild build --locked           # build exactly what is locked, or fail"""

_ALL = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_file(parser)
    parser.add_argument(
        "-u",
        "--upgrade",
        nargs="?",
        action="append",
        const=_ALL,
        default=[],
        metavar="MODEL",
        help="look up the sources of this model again (default: of every model)",
    )
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 when something would change")
    parser.add_argument("--quiet", action="store_true", help="print only failures and the summary")


def run(args: argparse.Namespace) -> int:
    """Write the lock file and print what changed in it; with --check only print, and exit with 1 if anything would."""
    from llmbuild.engine.store import Store
    from llmbuild.manifest.lock import LOCK_FILE, write_lock
    from llmbuild.manifest.lockdiff import differences
    from llmbuild.workspace import locking
    from llmbuild.workspace.neighbours import neighbours
    from llmbuild.workspace.observe import load_manifest, observe_world
    from llmbuild.workspace.toolchain import TVM_MEMO, Toolchain

    path = find_manifest(args.file)
    store = Store(args.cache_dir)
    toolchain = Toolchain(store.stat_cache, memo=store.root / TVM_MEMO)
    project = load_manifest(path, toolchain).project
    models = _models(args.upgrade, project)
    old = locking.load_lock(Path(project.root), toolchain)
    new = old.copy()
    upgraded = [fetch for fetch in locking.fetches(project) if fetch.model in models]
    for fetch in upgraded:
        if fetch.kind.announced or not args.check:
            new.forget(fetch.key)
    others = neighbours(project, toolchain)
    kept = _kept_keys(project, others)
    _prune(new, kept)
    resolve = not args.check or bool(models)
    # One machine rarely has the tools of every platform, and a lock is for all of them: what is not here is no error.
    observed = observe_world(project, store, toolchain, new, offline=args.offline, resolve=resolve, lacking=[])
    try:
        if args.check:
            new = locking.required_lock(project, observed, new)
            _keep_others(new, old, kept)
        else:
            _pin_all(args, project, observed, store, new, {fetch.label for fetch in upgraded})
            new.toolchain = locking.toolchain_of(observed)
    finally:
        store.close()
    _keep_tools(new, old, project, toolchain)
    _keep_tools_of(others, new, old, project)
    found = differences(old, new)
    exists = (Path(project.root) / LOCK_FILE).exists()
    if not args.check and (old.changed or new.to_toml() != old.to_toml() or not exists):
        write_lock(Path(project.root) / LOCK_FILE, new)
    _report(found, project, new, check=args.check, exists=exists)
    return ExitCode.FAILED if args.check and (found or not exists) else ExitCode.OK


def _models(asked: Sequence[str], project: Project) -> set[str]:
    """The models to upgrade.  Raises UsageError for one that is in no build."""
    from llmbuild.workspace.locking import fetches

    known = list(dict.fromkeys(fetch.model for fetch in fetches(project)))
    if _ALL in asked:
        return set(known)
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
    included.  None where a manifest cannot be read, so that every pin may be one of its own."""
    from llmbuild.sources import lock_key

    if not others.all_read:
        return None
    keys = set[str]()
    for model in (model for one in (project, *others.projects) for model in one.models.values()):
        if model.source is not None:
            keys.add(lock_key(model.source, model.source_format))
        if model.adapter is not None:
            keys.add(lock_key(model.adapter))
    return keys


def _prune(lock: Lock, kept: Collection[str] | None) -> None:
    """Drop the pins of sources that no manifest has any more."""
    for key in [key for key in lock.sources if kept is not None and key not in kept]:
        lock.forget(key)


def _keep_others(new: Lock, old: Lock, kept: Collection[str] | None) -> None:
    for key, pin in old.sources.items():
        if key not in new.sources and (kept is None or key in kept):
            new.sources[key] = pin


def _keep_tools_of(others: Neighbours, new: Lock, old: Lock, project: Project) -> None:
    """Keep what the lock has of tools of platforms that only other manifests build for."""
    from llmbuild.plan.observed import DEVICE_TOOL

    own = {cell.platform for cell in project.matrix}
    theirs = {cell.platform for other in others.projects for cell in other.matrix} - own
    for name, identity in old.toolchain.items():
        tool, _, platform = name.rpartition(" ")
        other = tool in ("linker", DEVICE_TOOL) and bool(platform) and platform not in own
        if other and (platform in theirs or not others.all_read):
            new.toolchain[name] = identity


def _keep_tools(new: Lock, old: Lock, project: Project, toolchain: Toolchain) -> None:
    """Keep what the lock has of tools of platforms that are not on this machine, and say so on standard error."""
    from llmbuild.workspace.machine import Machine

    machine = Machine(toolchain)
    absent: dict[tuple[str, str], list[str]] = {}
    for name in dict.fromkeys(cell.platform for cell in project.matrix):
        for tool, error in machine.absent(project.platforms[name]):
            kept = old.toolchain.get(f"{tool} {name}")
            if kept is not None:
                new.toolchain[f"{tool} {name}"] = kept
            why = f"{'not recorded' if kept is None else 'kept as it was locked'}, it is not on this machine: {error.what}"
            absent.setdefault((tool, f"{why} ({error.fix})" if error.fix else why), []).append(name)
    for (tool, why), names in absent.items():
        print_note(f"the {tool} of {', '.join(names)} is {why}")


def _pin_all(
    args: argparse.Namespace, project: Project, observed: Observed, store: Store, lock: Lock, upgraded: set[str]
) -> None:
    """Put into the lock the SHA-256 and size of every file.

    Local files are hashed where they are.  Weights of a hub are known by what the hub says of them; its small files are
    downloaded, and so are packages and archives, which show their files only then.  All that goes into the store.
    """
    from llmbuild.sources.pins import complete
    from llmbuild.workspace import locking
    from llmbuild.workspace.observe import expand_world

    # Only the fetch tasks are looked at, which have no linker in their keys.
    unknown = {cell.platform: "" for cell in project.matrix}
    everywhere = dataclasses.replace(observed, linkers={**unknown, **observed.linkers})
    tasks = {task.label: task for task in expand_world(project, everywhere)}
    required = locking.required_lock(project, observed, lock)
    needed: list[Fetch] = []
    for fetch in locking.fetches(project):
        pin = required.sources[fetch.key]
        if not fetch.kind.remote:
            lock.put(fetch.key, pin)
        elif fetch.kind.announced:
            lock.put(fetch.key, _announced_pin(fetch, tasks[fetch.label], pin, store, offline=args.offline))
        elif not complete(fetch.pin(lock)):
            needed.append(fetch)
    if not needed:
        return
    remotes = locking.remote_fetches(project, lock, store, [tasks[fetch.label] for fetch in needed])
    if args.offline:
        locking.require_offline(remotes)
    # What an index has under a version can be replaced: an upgrade looks again.  A URL's SHA-256 is in the manifest.
    force = {fetch.label for fetch in needed if fetch.label in upgraded and not fetch.kind.fixed}
    found = _fetch(args, project, store, [tasks[fetch.label] for fetch in needed], set() if args.offline else force)
    for fetch in needed:
        observation = fetch.observation(observed)
        assert observation is not None
        pin = fetch.kind.fetched_pin(fetch.source.spec, observation.params, None, found[fetch.label])
        lock.put(fetch.key, pin)


def _announced_pin(
    fetch: Fetch, task: Task, pin: Mapping[str, Any], store: Store, *, offline: bool
) -> Mapping[str, Any]:
    """The pin with the SHA-256 of all files of a source whose origin announces them: from what was fetched before, else
    of the files that are announced without it, which are downloaded."""
    from llmbuild.engine.bind import bind
    from llmbuild.engine.lookup import Cached, lookup
    from llmbuild.sources.pins import complete
    from llmbuild.sources.remote import Download, RemoteKind
    from llmbuild.workspace.locking import tree_files

    if complete(pin):
        return pin
    before = lookup(store, bind(task, {}, store.cas.get_bytes).action.digest)
    if isinstance(before, Cached):
        return fetch.kind.fetched_pin(fetch.source.spec, task.params, pin, tree_files(before.tree))
    if offline:
        from llmbuild.errors import FetchError

        raise FetchError(
            "its small files have to be downloaded, and --offline forbids it",
            where=f"{fetch.label}: {fetch.key}",
            why="the lock file does not have the SHA-256 of all of them, and they are not in the cache",
            fix="run `llmbuild lock` once with a network",
        )
    assert isinstance(fetch.kind, RemoteKind)
    identity: Any = task.params["source"]
    scratch = store.new_scratch_dir("lock")
    what = Download(identity, {}, pin, store.cas.root, store.root / "partial", scratch, scratch, _no_progress)
    return fetch.kind.complete_pin(what, lambda path: store.cas.put_file(path, move=True))


def _no_progress(done: int, total: int, unit: str = "") -> None:
    """The small files of a model take no time worth showing."""


def _fetch(
    args: argparse.Namespace, project: Project, store: Store, tasks: Sequence[Task], force: set[str]
) -> dict[str, dict[str, tuple[Digest, int]]]:
    """Run fetch tasks; their files by label.  Raises the error of the first one that failed."""
    from llmbuild.engine import events
    from llmbuild.engine.scheduler import Scheduler
    from llmbuild.executors.local import LocalExecutor
    from llmbuild.report.terminal import view_for
    from llmbuild.workspace.locking import tree_files
    from llmbuild.workspace.manifests import identity

    view = view_for(quiet=args.quiet)

    def emit(event: events.Event) -> None:
        # A failure is raised below, as the command's own.
        if not isinstance(event, events.Summary | events.Failed):
            view(event)

    scheduler = Scheduler(store, LocalExecutor(store), jobs=2, force=force, project=identity(project), emit=emit)
    try:
        result = scheduler.run(tasks)
    finally:
        view.close()
    found = {}
    for label, outcome in result.outcomes.items():
        if outcome.failure is not None:
            raise outcome.failure.to_error()
        assert outcome.tree is not None
        found[label] = tree_files(outcome.tree)
    return found


def _report(found: Sequence[Difference], project: Project, lock: Lock, *, check: bool, exists: bool) -> None:
    """Say what changed, or would."""
    from llmbuild.manifest.lock import LOCK_FILE
    from llmbuild.report.lock_text import difference_line, difference_lines
    from llmbuild.report.style import style_for
    from llmbuild.workspace.locking import models_by_key

    if not found and (exists or not check):
        counts = f"{_count(len(lock.sources), 'source')}, {_count(len(lock.toolchain), 'tool')}"
        print(f"{LOCK_FILE} is up to date: {counts}")
        return
    changes = _count(len(found), "difference" if check else "change")
    if not exists:
        print(f"{LOCK_FILE} does not exist: {changes}" if check else f"{LOCK_FILE} written: {changes}")
    else:
        print(f"{LOCK_FILE} is not up to date: {changes}" if check else f"{LOCK_FILE} updated: {changes}")
    users = models_by_key(project)
    lines = [difference_line(difference, users) for difference in found]
    if lines:
        print(difference_lines(lines, style_for(sys.stdout)))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
