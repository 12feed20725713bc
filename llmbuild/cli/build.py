"""`llmbuild build`: bring the selected tasks up to date and put their outputs into the project."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from llmbuild.cli.common import add_selection, open_workspace, path_argument, print_note
from llmbuild.engine.settings import MOST_JOBS
from llmbuild.errors import ExitCode, StoreError, UsageError
from llmbuild.workspace.place import owns_state, state_of

if TYPE_CHECKING:
    from llmbuild.canonical import Digest
    from llmbuild.engine import events
    from llmbuild.engine.executor import Executor, TaskFailure
    from llmbuild.engine.lookup import Cached
    from llmbuild.engine.outcome import BuildResult
    from llmbuild.engine.store import Store
    from llmbuild.plan.planner import Built, Lost
    from llmbuild.plan.reasons import Reason
    from llmbuild.report.terminal import View
    from llmbuild.tasks.kind import Progress
    from llmbuild.workspace.recording import Recording
    from llmbuild.workspace.snapshot import Snapshot

HELP = "build what is not up to date"
EXAMPLE = "llmbuild build --model smollm2 --jobs 2"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_selection(parser)
    parser.add_argument("-j", "--jobs", type=int, metavar="N", help="tasks at a time (default: the number of CPUs)")
    parser.add_argument(
        "--memory",
        metavar="SIZE",
        help="what running tasks may take together, such as 8G (default: $LLMBUILD_MEMORY, or 80%% of what is free)",
    )
    parser.add_argument(
        "-k", "--keep-going", action="store_true", help="after a failure, build all that does not need it"
    )
    parser.add_argument(
        "-n", "--dry-run", action="store_true", help="only show what would run, as `llmbuild plan` does"
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="also run the named tasks (default: all but downloads) again, and compare what they give byte for byte; "
        "exit code 7 when it differs",
    )
    parser.add_argument("--events", type=path_argument, metavar="FILE", help="write what happens as JSON lines")
    parser.add_argument(
        "--provenance",
        action="store_true",
        help="write what each result was made from to <output>/provenance (or: provenance = true in the manifest)",
    )
    parser.add_argument("--quiet", action="store_true", help="print only failures and the summary")


def run(args: argparse.Namespace) -> int:
    """Build; the exit code is that of the first failed task in plan order."""
    from llmbuild.cli.plan import print_plan

    if args.jobs is not None and not 1 <= args.jobs <= MOST_JOBS:
        raise UsageError(f"--jobs must be 1 to {MOST_JOBS}, not {args.jobs}")
    memory = _memory(args.memory)
    with open_workspace(args) as workspace:
        session = workspace.look(*args.tasks, force=args.force, partial=args.keep_going)
        if args.dry_run:
            print_plan(session, session.plan(), "text")
            return ExitCode.OK
        return _build(args, session, memory)


def _build(args: argparse.Namespace, session: Snapshot, memory: int | None) -> int:
    from llmbuild.engine.cas import MissingBlobError
    from llmbuild.engine.predict import Predictor
    from llmbuild.engine.scheduler import Scheduler
    from llmbuild.engine.settings import default_jobs
    from llmbuild.errors import Interrupted
    from llmbuild.report.terminal import view_for
    from llmbuild.tasks.registry import load_kind
    from llmbuild.workspace.manifests import identity, manifest_name
    from llmbuild.workspace.recording import Recording

    _require_unclaimed(session)
    view = view_for(quiet=args.quiet)
    project = identity(session.whole)
    recording = Recording(Path(session.whole.root), args.events, manifest_name(session.whole))
    with recording:
        reporter = _Reporter(session, view, recording)
        jobs = args.jobs or default_jobs()
        # The index is opened when the first task has to run, never by a null build.
        predictor = Predictor(lambda kind: session.store.index.recent(kind), load_kind, project)  # noqa: PLW0108

        def build(force: frozenset[str]) -> tuple[BuildResult, events.Event]:
            scheduler = Scheduler(
                session.store,
                _LazyExecutor(session.store),
                jobs=jobs,
                keep_going=args.keep_going,
                force=force,
                project=project,
                predict=predictor,
                memory=memory,
                emit=reporter,
            )
            result = scheduler.run(session.tasks)
            if not args.locked:
                _complete_lock(session, result)
            return result, _install(session, result, args.provenance or session.whole.provenance)

        try:
            try:
                result, installed = build(session.force)
            except MissingBlobError:
                # A collection in another process took a result between our look at it and its installation.
                result, installed = build(frozenset())
            reporter.emit(installed)
            code = result.exit_code
            if args.check and result.ok:
                code = _check(args, session, result, jobs, reporter)
        except Interrupted:
            code = ExitCode.INTERRUPTED
        finally:
            view.close()
        reporter.finish()
    _job_summary(recording.last)
    if reporter.ran:
        from llmbuild.workspace.store_knowledge import remember_sources

        remember_sources(session.store, session.world.observed)
    return code


def _check(
    args: argparse.Namespace, session: Snapshot, result: BuildResult, jobs: int, reporter: _Reporter
) -> ExitCode:
    """Run the tasks that were asked for by name again, or all of them, and compare.

    What comes from elsewhere is downloaded again only when it was asked for by name: other checks take the stored files.
    """
    from llmbuild.plan.select import asked
    from llmbuild.workspace.compare import check

    remote = {one.fetch.label for one in session.remotes}
    if args.tasks:
        tasks = asked(session.tasks, args.tasks)
    else:
        tasks = tuple(task for task in session.tasks if task.label not in remote)
        if remote:
            print_note(f"not fetched again: {', '.join(sorted(remote))}; `build --check fetch` does that")
    outcomes = [(task.label, result.outcomes[task.label]) for task in tasks]
    return check(session.store, outcomes, jobs, reporter.emit)


def _job_summary(events: Path) -> None:
    """Append the summary of the build to the page of a CI job, where there is one (GitHub Actions names its file)."""
    path = os.environ.get("GITHUB_STEP_SUMMARY")
    if not path:
        return
    from llmbuild.report.build_markdown import build_markdown
    from llmbuild.report.build_report import build_report
    from llmbuild.workspace.recording import read_events

    # A page that cannot be written must not fail a build that is done.
    with contextlib.suppress(OSError, StoreError), Path(path).open("a", encoding="utf-8") as stream:
        stream.write(build_markdown(build_report(read_events(events))) + "\n")


def _memory(asked: str | None) -> int | None:
    """The memory budget in bytes: the option, the environment, or a share of what is free.  Raises UsageError."""
    from llmbuild.engine import memory
    from llmbuild.engine.limits import parse_size

    asked = asked or os.environ.get("LLMBUILD_MEMORY")
    if asked:
        return parse_size(asked)
    free = memory.available()
    return None if free is None else int(free * memory.SHARE)


class _LazyExecutor:
    """The local executor, imported when the first task runs: a null build has no use for it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._executor: Executor | None = None

    def _get(self) -> Executor:
        if self._executor is None:
            from llmbuild.executors.local import LocalExecutor

            self._executor = LocalExecutor(self._store)
        return self._executor

    def run(self, action: Digest, progress: Progress, lock_fd: int | None = None) -> Cached | TaskFailure | None:
        return self._get().run(action, progress, lock_fd)

    def expect(self, kind: str, count: int) -> None:
        self._get().expect(kind, count)

    def terminate(self) -> None:
        self._get().terminate()


class _Reporter:
    """Takes the scheduler's events: adds the reasons, keeps the logs, and passes all on to the view and to the record."""

    def __init__(self, session: Snapshot, view: View, recording: Recording) -> None:
        self.ran = False
        self._session = session
        self._view = view
        self._recording = recording
        self._tasks = {task.label: task for task in session.tasks}
        self._known: dict[str, Built | Lost | None] = {}
        self._summary: events.Summary | None = None
        self._done: dict[str, bool] = {}
        """The tasks that were told to have a result, and whether they ran."""

    def __call__(self, event: events.Event) -> None:
        from llmbuild.engine import events

        match event:
            case events.PlanMade() if self._summary is not None:
                # The build goes once more over tasks whose results vanished before they were installed.
                return
            case events.CachedTask() if self._summary is not None and event.label in self._done:
                return
            case events.CachedTask():
                self._done[event.label] = False
            case events.PlanMade():
                event = dataclasses.replace(event, project=self._session.whole.name)
            case events.Queued():
                # A quick task has its trace before its start is told, so what was known is looked up now.
                self._known[event.label] = self._session.knowledge.recall(event.action)
            case events.Started():
                self.ran = True
                from llmbuild.report.events import Explained

                reasons = self._reasons(event.label, event.action)
                self.emit(Explained(time=event.time, label=event.label, reasons=reasons))
            case events.Finished():
                self._done[event.label] = True
                trace = self._session.store.traces.get(event.action)
                if trace is not None and trace.log is not None:
                    self._keep_log(event.label, self._session.store.cas.blob_path(trace.log))
            case events.Failed():
                path = self._keep_log(event.label, Path(event.failure.log)) if event.failure.log else None
                if path is not None:
                    self._view.log_at(event.label, path)
            case events.Summary():
                if self._summary is not None:
                    ran = sum(self._done.values())
                    wall = round(self._summary.wall_s + event.wall_s, 6)
                    event = dataclasses.replace(event, ran=ran, cached=event.ran + event.cached - ran, wall_s=wall)
                self._summary = event
                # The outputs are not in place yet; the last word comes after them.
                return
        self.emit(event)

    def emit(self, event: events.Event) -> None:
        """Pass an event on."""
        self._recording.write(event)
        self._view(event)

    def finish(self) -> None:
        """The summary, last."""
        if self._summary is not None:
            self._recording.write(self._summary)
            self._view.summary(self._summary)

    def _reasons(self, label: str, digest: Digest) -> tuple[Reason, ...]:
        from llmbuild.plan.planner import Lost, why
        from llmbuild.plan.reasons import Evicted, Forced

        if label in self._session.force:
            return self._session.because.get(label) or (Forced(),)
        known = self._known.get(label)
        if isinstance(known, Lost):
            return (known.reason,)
        if known is not None:
            # It was whole when the build looked; what needs it found a part missing since, and sent the build back.
            return (Evicted(),)
        action = self._session.store.get_action(digest).action
        return why(self._tasks[label], action, self._session.knowledge)

    def _keep_log(self, label: str, source: Path) -> str | None:
        """Copy a task's log to the project's logs; returns the path as the user sees it."""
        from llmbuild.engine.files import write_atomic
        from llmbuild.workspace.manifests import manifest_name

        name = label.replace(", ", ",").replace("/", "_") + ".log"
        whole = self._session.whole
        path = state_of(Path(whole.root), manifest_name(whole)) / "logs" / name
        if not owns_state(Path(whole.root), path.parent):
            return None
        try:
            write_atomic(path, source.read_bytes())
        except (OSError, StoreError):
            # The log is still in the store, and a full disk must not hide the failure that it tells of.
            return None
        with contextlib.suppress(ValueError):
            return str(path.relative_to(Path.cwd()))
        return str(path)


def _complete_lock(session: Snapshot, result: BuildResult) -> None:
    """Pin in the lock file what was fetched."""
    from llmbuild.workspace.locking import complete

    trees = {label: outcome.tree for label, outcome in result.outcomes.items()}
    complete(session.world.project, session.world.observed, session.world.lock, trees)


def _require_unclaimed(session: Snapshot) -> None:
    """Raise UsageError, before anything runs, where another manifest of the directory has results in the same places."""
    from llmbuild.workspace.manifests import manifest_name, other_manifests

    if not other_manifests(session.whole, session.store.seal):
        return
    from llmbuild.engine.install import require_unclaimed

    dests = {install.dest for task in session.tasks for install in task.installs}
    require_unclaimed(Path(session.whole.root), dests, manifest_name(session.whole), session.whole.output)


def _install(session: Snapshot, result: BuildResult, provenance: bool) -> events.Event:
    """Put outputs into the project, and take away those of tasks that are gone.

    A directory that several tasks fill (a model's weights and its configuration) is touched only when all of them
    succeeded: after a failure it stays as the last good build left it.
    """
    from llmbuild.engine.install import Installation, install
    from llmbuild.plan.graph import labels
    from llmbuild.report.events import Installed
    from llmbuild.workspace.manifests import manifest_name, other_manifests

    broken = {one.dest for task in session.tasks if result.outcomes[task.label].tree is None for one in task.installs}
    items = [
        Installation(task.label, tree, one)
        for task in session.tasks
        if (tree := result.outcomes[task.label].tree) is not None
        for one in task.installs
        if one.dest not in broken
    ]
    known = labels(session.whole)
    statements: list[Installation] = []
    if provenance:
        from llmbuild.workspace.statements import owners, statement_installations

        known |= owners(session.whole)
        statements = statement_installations(session.store, session.whole, session.tasks, result)
    report = install(
        session.store,
        Path(session.whole.root),
        [*items, *statements],
        known=known,
        manifest=manifest_name(session.whole),
        output=session.whole.output,
        alone=lambda: not other_manifests(session.whole, session.store.seal),
    )
    outputs = dict.fromkeys(item.install.dest for item in items)
    return Installed(
        time=time.time(),
        written=tuple(report.written),
        restored=tuple(report.restored),
        removed=tuple(report.removed),
        kept=tuple(report.kept),
        outputs=tuple(outputs),
    )
