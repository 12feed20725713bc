"""Bringing the tasks of a snapshot up to date and their outputs into the project."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llmbuild.engine.cas import MissingBlobError
from llmbuild.engine.install import Installation, install
from llmbuild.engine.predict import Predictor
from llmbuild.engine.registry import load_kind
from llmbuild.engine.scheduler import Scheduler
from llmbuild.engine.settings import default_jobs
from llmbuild.errors import Interrupted
from llmbuild.executors.named import NamedExecutor
from llmbuild.plan.graph import labels
from llmbuild.workspace.absent import require_tools
from llmbuild.workspace.fetched import complete
from llmbuild.workspace.manifests import identity, manifest_name, other_manifests
from llmbuild.workspace.neighbours import require_no_claims
from llmbuild.workspace.outcome import BuildOutcome
from llmbuild.workspace.recording import Recording
from llmbuild.workspace.reporter import OnEvent, Reporter
from llmbuild.workspace.store_knowledge import remember_sources

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llmbuild.engine.executor import Executor, TaskFailure
    from llmbuild.engine.outcome import BuildResult
    from llmbuild.engine.sharing import Sharing
    from llmbuild.engine.task import Task
    from llmbuild.report.events import Checked, Installed
    from llmbuild.workspace.options import OnNote
    from llmbuild.workspace.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class Manner:
    """How to build: `jobs` tasks at a time (None for the number of CPUs) that take at most `memory` bytes together (None
    for no bound); `keep_going` also builds, after a failure, all that does not need the failed task.

    `check` runs the tasks that were selected by name (else all but downloads) again and compares their bytes; `provenance`
    installs statements beside the results; `events` is a file that records events as JSON lines; `executor` runs the tasks,
    None for the one that the user's environment and settings name; `remote` names the other cache to read and
    write, None for the one that the environment names, if any.
    """

    jobs: int | None = None
    memory: int | None = None
    keep_going: bool = False
    check: bool = False
    provenance: bool = False
    events: Path | None = None
    executor: Executor | None = None
    remote: str | None = None


def build(snapshot: Snapshot, manner: Manner, on_event: OnEvent, on_note: OnNote) -> BuildOutcome:
    """Build; the outcome has the failures of tasks.

    Unless it keeps going, raises ToolchainError where this machine lacks what tasks need, and InputError where a checkpoint is
    refused (or a MultiError); UsageError where a library needs more memory than a package may, which is known before the build or
    after it, another manifest of the directory has results in the same places, or no other cache has that name; StoreError when
    the store, the project or the file of events fails; and Interrupted after a signal, when all is recorded.
    """
    sharing = _sharing(manner.remote, snapshot)
    # Nothing runs for minutes before a missing tool is named.
    if not manner.keep_going and any(task.lack is not None for task in snapshot.tasks):
        require_tools(snapshot.plan())
    whole = snapshot.whole
    _require_memory(snapshot)
    require_no_claims(snapshot)
    interrupted: Interrupted | None = None
    with Recording(Path(whole.root), manner.events, manifest_name(whole)) as recording:
        reporter = Reporter(snapshot, recording, on_event)
        try:
            outcome = _build(snapshot, manner, sharing, reporter, on_note)
        except Interrupted as error:
            interrupted = error
        reporter.finish()
    if interrupted is None and not snapshot.names and outcome.result.ok:
        _note_outdated(snapshot, outcome.result, on_note)
    if reporter.ran:
        remember_sources(snapshot.store, snapshot.world.observed)
    if interrupted is not None:
        raise interrupted
    if reporter.ran and outcome.result.ok:
        # Fetched models and built libraries say what was not known before, or about.
        _require_memory(snapshot)
    if not outcome.result.ok:
        # The next look of this process reuses the stats and digests that workers recorded of the user's files.
        snapshot.store.stat_cache.save()
    return outcome


def _build(
    snapshot: Snapshot,
    manner: Manner,
    sharing: Sharing | None,
    reporter: Reporter,
    on_note: OnNote,
) -> BuildOutcome:
    whole, store, jobs = snapshot.whole, snapshot.store, manner.jobs or default_jobs()
    project = identity(whole)
    executor = manner.executor or NamedExecutor(store)
    # The index is opened when the first task has to run, never by a null build.
    predictor = Predictor(lambda kind: store.index.recent(kind), load_kind, project)  # noqa: PLW0108

    def build(force: frozenset[str]) -> tuple[BuildResult, list[Installation], Installed]:
        scheduler = Scheduler(
            store,
            executor,
            jobs=jobs,
            keep_going=manner.keep_going,
            force=force,
            project=project,
            predict=predictor,
            memory=manner.memory,
            sharing=sharing,
            explain=snapshot.explain,
            reword=snapshot.reworded,
            emit=reporter,
        )
        result = scheduler.run(snapshot.tasks)
        if not snapshot.options.locked:
            _complete_lock(snapshot, result)
        return result, *_install(snapshot, result, manner.provenance or whole.provenance)

    try:
        result, items, installed = build(snapshot.force)
    except MissingBlobError:
        # A collection in another process evicted a result between its look-up and its installation.
        result, items, installed = build(frozenset())
    if manner.check and result.ok and (lost := _lost_inputs(snapshot, result)):
        # A check reads what a build that has nothing to run does not.
        result, items, installed = build(lost)
    reporter.emit(installed)
    checks = _check(snapshot, executor, result, jobs, reporter, on_note) if manner.check and result.ok else {}
    return BuildOutcome(result, Path(whole.root), items, checks)


def _sharing(remote: str | None, snapshot: Snapshot) -> Sharing | None:
    """The other cache of this name, else the one that the environment names; the lock's pins bind its results too.

    Raises UsageError for what is no cache.
    """
    if not (remote or os.environ.get("LLMBUILD_REMOTE")):
        return None
    from llmbuild.remotes.named import named_remote

    return named_remote(remote, refuse=snapshot.broken_promise)


def _check(
    snapshot: Snapshot,
    executor: Executor,
    result: BuildResult,
    jobs: int,
    reporter: Reporter,
    on_note: OnNote,
) -> Mapping[str, Checked | TaskFailure]:
    """Run the tasks that were selected by name again, or all of them, and compare.

    Remote sources are downloaded again only when they were selected by name: other checks take the stored files.
    """
    from llmbuild.workspace.check import check

    remote = {one.fetch.label for one in snapshot.remotes}
    if not snapshot.names and remote:
        on_note(f"not fetched again: {', '.join(sorted(remote))}; `build --check fetch` does that")
    outcomes = [(task.label, result.outcomes[task.label]) for task in _checked(snapshot)]
    return check(snapshot.store, executor, outcomes, jobs, reporter.emit)


def _checked(snapshot: Snapshot) -> tuple[Task, ...]:
    """The tasks that a check runs again."""
    from llmbuild.plan.select import asked

    if snapshot.names:
        return asked(snapshot.tasks, snapshot.names)
    remote = {one.fetch.label for one in snapshot.remotes}
    return tuple(task for task in snapshot.tasks if task.label not in remote)


def _lost_inputs(snapshot: Snapshot, result: BuildResult) -> frozenset[str]:
    """The tasks whose output has files that a check reads and that are no longer where they were left."""
    from llmbuild.engine.tree import Tree
    from llmbuild.plan.planner import reads

    cas = snapshot.store.cas
    lost: dict[str, Tree] = {}

    def lost_of(label: str) -> Tree:
        if label not in lost:
            tree = result.outcomes[label].tree
            away = [] if tree is None else [file for file in cas.missing(tree) if not cas.places.stands(file.digest)]
            lost[label] = Tree.of(away)
        return lost[label]

    refs = [ref for task in _checked(snapshot) for ref in task.inputs.values()]
    return frozenset(ref.task for ref in refs if reads(ref, lost_of(ref.task)))


def _note_outdated(snapshot: Snapshot, result: BuildResult, on_note: OnNote) -> None:
    """Note the packages that a build which left them alone has made out of date."""
    if not snapshot.whole.packages:
        return
    from llmbuild.workspace.packages import outdated_note

    outputs = {label: one.tree.digest for label, one in result.outcomes.items() if one.tree is not None}
    if (note := outdated_note(snapshot, outputs)) is not None:
        on_note(note)


def _complete_lock(snapshot: Snapshot, result: BuildResult) -> None:
    """Pin in the lock file what was fetched."""
    trees = {label: outcome.tree for label, outcome in result.outcomes.items()}
    world = snapshot.world
    complete(world.project, world.observed, world.lock, trees, snapshot.options.unlisted)


def _require_memory(snapshot: Snapshot) -> None:
    """Raise UsageError where a library needs more memory than a package may, as far as that is known now."""
    if any(package.memory is not None for package in snapshot.whole.packages.values()):
        from llmbuild.workspace.memory import require_memory

        require_memory(snapshot, snapshot.plan())


def _install(snapshot: Snapshot, result: BuildResult, provenance: bool) -> tuple[list[Installation], Installed]:
    """Install outputs into the project, and remove those of tasks that are gone.

    A result that several tasks fill (a model's weights and its configuration, a library and its record) is touched only
    when all of them succeeded: after a failure it stays as the last good build left it.
    """
    from llmbuild.report.events import Installed

    tasks, whole, store = snapshot.tasks, snapshot.whole, snapshot.store
    broken = {one.result for task in tasks if result.outcomes[task.label].tree is None for one in task.installs}
    items = [
        Installation(task.label, tree, one)
        for task in tasks
        if (tree := result.outcomes[task.label].tree) is not None
        for one in task.installs
        if one.result not in broken
    ]
    known = labels(whole)
    statements: list[Installation] = []
    if provenance:
        from llmbuild.workspace.statements import owners, statement_installations

        known |= owners(whole)
        statements = statement_installations(store, whole, tasks, result, {item.install.dest for item in items})
    report = install(
        store,
        Path(whole.root),
        [*items, *statements],
        known=known,
        manifest=manifest_name(whole),
        output=whole.output,
        alone=lambda: not other_manifests(whole, store.seal),
    )
    return items, Installed(
        time=time.time(),
        written=tuple(report.written),
        restored=tuple(report.restored),
        removed=tuple(report.removed),
        kept=tuple(report.kept),
        outputs=tuple(dict.fromkeys(item.install.dest for item in items)),
    )
