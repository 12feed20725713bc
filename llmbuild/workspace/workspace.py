"""The product as a library: a manifest with its store, opened once, and what can be done with it.

Each method observes the world anew, as the command of its name does: sources, tools, the lock file and the store.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llmbuild.canonical import Digest
from llmbuild.engine.cas import MissingBlobError
from llmbuild.engine.memory import budget
from llmbuild.engine.store import Store
from llmbuild.errors import UsageError
from llmbuild.plan.narrow import narrow
from llmbuild.variables import MOST_JOBS
from llmbuild.workspace.expanded import Manifest, load_manifest
from llmbuild.workspace.locking import require_offline
from llmbuild.workspace.manifests import manifest_name
from llmbuild.workspace.named_platforms import platforms_named
from llmbuild.workspace.options import ALL, USUAL, OnNote, Options, Selection
from llmbuild.workspace.patterns import as_named
from llmbuild.workspace.place import state_of
from llmbuild.workspace.snapshot import Snapshot, take
from llmbuild.workspace.tool_identities import TVM_MEMO, Toolchain
from llmbuild.workspace.trust import Trust

if TYPE_CHECKING:
    import os
    from types import TracebackType

    from llmbuild.engine.executor import Executor
    from llmbuild.manifest.project import Project
    from llmbuild.plan.planner import Plan, Verdict
    from llmbuild.report.build_report import BuildReport
    from llmbuild.workspace.outcome import BuildOutcome
    from llmbuild.workspace.pinning import LockOutcome
    from llmbuild.workspace.publishing import Published, Watcher
    from llmbuild.workspace.reporter import OnEvent


@dataclass(frozen=True, slots=True)
class Explanation:
    """The verdict on one task, and the plan of it and all that it needs, which has the reasons of the tasks that it follows."""

    verdict: Verdict
    plan: Plan

    def __str__(self) -> str:
        from llmbuild.report.plan_text import why_text
        from llmbuild.report.style import Style

        return why_text(self.plan, self.verdict, Style())


class Workspace:
    """An open manifest; use it as a context manager, or close it."""

    def __init__(
        self, manifest: Manifest, store: Store, selection: Selection, options: Options, on_note: OnNote
    ) -> None:
        """As `open` has them.  Raises UsageError where the manifest does not have what the selection names."""
        self.store = store
        self.whole = manifest.project
        self.notes = manifest.notes
        """Notes on the manifest that stop nothing."""
        self._project = narrow(
            manifest.project,
            models=selection.models,
            platforms=platforms_named(manifest.project, selection.platforms),
            schemes=selection.quantizations,
        )
        if selection.platforms:
            self._project = as_named(self._project)
        self._options = options.decided()
        self._on_note = on_note
        self._toolchain: Toolchain | None = None

    @staticmethod
    def open(
        manifest: Path,
        selection: Selection = ALL,
        options: Options = USUAL,
        *,
        on_note: OnNote = lambda _note: None,
    ) -> Workspace:
        """Read a manifest and open its store.  `on_note` receives what is found later and worth reporting.

        Raises UsageError where the manifest is wrong or does not have what the selection names, and StoreError.
        """
        store = Store(options.cache)
        toolchain = _toolchain(store)
        opened = Workspace(load_manifest(manifest, toolchain), store, selection, options, on_note)
        # A look right away need not look up llmbuild's own files again.
        opened._toolchain = toolchain
        return opened

    def __enter__(self) -> Workspace:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Write the store's memos and remove this process's temporary files; the workspace stays usable."""
        self.store.close()

    @property
    def last_build(self) -> Path:
        """The file of the events of the last build that ended; it may be missing."""
        from llmbuild.workspace.recording import LAST_BUILD

        return state_of(Path(self.whole.root), manifest_name(self.whole)) / LAST_BUILD

    def log(self, action: Digest) -> str:
        """What the task with this action printed when it ran, or failed; empty where nothing is known of it."""
        trace = self.store.traces.get(action)
        try:
            if trace is not None:
                return "" if trace.log is None else self.store.cas.get_bytes(trace.log).decode("utf-8", "replace")
            return self.store.log_path(action).read_text("utf-8", "replace")
        except (OSError, MissingBlobError):
            return ""

    def look(self, *tasks: str, force: bool = False, partial: bool = False) -> Snapshot:
        """The workspace as it is now, with the tasks of these names (labels, patterns, kinds; none for all) and all they
        need; with `force` the named tasks count as out of date.

        Raises LlmbuildError where a source, a tool or a linker is missing, or the lock file is not up to date although
        `locked` requires it; and, unless the look may be `partial`, where offline forbids a download that the tasks need.
        """
        snapshot = take(
            self.whole,
            self._project,
            self.store,
            self._tools(),
            self._options,
            tasks,
            force=force,
            on_note=self._on_note,
        )
        if self._options.offline and not partial:
            require_offline(snapshot.remotes)
        return snapshot

    def plan(self, *tasks: str, force: bool = False) -> Plan:
        """What a build of these tasks would do, and why.  Raises what `look` does: a plan that cannot be carried out is no
        plan."""
        return self.look(*tasks, force=force).plan()

    def build(
        self,
        *tasks: str,
        force: bool = False,
        jobs: int | None = None,
        memory: int | None = None,
        keep_going: bool = False,
        check: bool = False,
        provenance: bool = False,
        events: str | os.PathLike[str] | None = None,
        executor: Executor | None = None,
        remote: str | None = None,
        on_event: OnEvent = lambda _event: None,
    ) -> BuildOutcome:
        """Bring these tasks and all they need up to date, and install their outputs into the project.  The other parameters
        are those of `Manner`, but no `memory` stands for the usual share of what is free.  `on_event` receives the events, the
        summary last.

        Raises what `look` does; unless it keeps going, ToolchainError and InputError before anything runs where tasks
        that have to run lack a tool or would refuse a checkpoint; BuildError when a task failed or a check found other
        bytes, which has what was built nevertheless; UsageError where another manifest of the directory has results in
        the same places; StoreError when the store, the project or the file of events fails; and Interrupted after a
        signal.
        """
        from llmbuild.workspace.building import Manner, build
        from llmbuild.workspace.outcome import BuildError

        if jobs is not None and not 1 <= jobs <= MOST_JOBS:
            raise UsageError(f"jobs must be 1 to {MOST_JOBS}, not {jobs}")
        snapshot = self.look(*tasks, force=force, partial=keep_going)
        manner = Manner(
            jobs,
            budget() if memory is None else memory,
            keep_going,
            check,
            provenance,
            None if events is None else Path(events),
            executor,
            remote,
        )
        outcome = build(snapshot, manner, on_event, self._on_note)
        if outcome.errors:
            raise BuildError(outcome)
        return outcome

    def why(self, name: str) -> Explanation:
        """Whether one task is up to date, and why it is not.  Raises what `look` does, and UsageError where the name is not
        that of one task."""
        task, plan = self.look(name, partial=True).plan_of(name)
        return Explanation(next(each for each in plan.verdicts if each.task.label == task.label), plan)

    def lock(
        self,
        *,
        upgrade: bool | str | Sequence[str] = (),
        check: bool = False,
        on_event: OnEvent = lambda _event: None,
    ) -> LockOutcome:
        """Pin every source of the manifest and the toolchain in llmbuild.lock, whatever the workspace was narrowed to, and
        resolve the sources of the models to `upgrade` again (True for all); with `check` nothing is written.

        Raises UsageError for a model that is in no build, and LlmbuildError where a source is missing or cannot be fetched.
        """
        from llmbuild.workspace.pinning import pin

        return pin(
            self.whole,
            self.store,
            self._tools(),
            Trust(Path(self.whole.root), self._options.trust),
            upgrade=(upgrade,) if isinstance(upgrade, str) else upgrade,
            check=check,
            offline=bool(self._options.offline),
            on_event=on_event,
            on_note=self._on_note,
        )

    def publish(
        self,
        *destinations: str,
        private: bool | None = None,
        revision: str | None = None,
        dry_run: bool = False,
        watcher: Watcher | None = None,
    ) -> list[Published]:
        """Publish what is built at these destinations: names of [publish] tables, or texts such as "hf:org/name"; none for all
        tables.  `private` and `revision` come before those of the tables; with `dry_run` nothing is sent.

        Raises UsageError for what is no destination, LlmbuildError where a result is not up to date, FetchError where a
        destination cannot be reached or refuses, or `offline` forbids it, and StoreError.
        """
        from llmbuild.publishing.kind import Wishes
        from llmbuild.workspace.publication import Origin
        from llmbuild.workspace.publishing import Watcher, chosen, publish

        def look(project: Project) -> Snapshot:
            return take(
                self.whole, project, self.store, self._tools(), self._options, (), force=False, on_note=self._on_note
            )

        return publish(
            Origin(self.whole, self.store, look),
            self._project,
            chosen(self._project, destinations),
            Wishes(private, revision),
            dry_run=dry_run,
            offline=bool(self._options.offline),
            watcher=watcher or Watcher(),
        )

    def report(self) -> BuildReport:
        """The report on the last build.  Raises UsageError where there was none, StoreError where its events cannot be read."""
        from llmbuild.workspace.reporting import last_report

        return last_report(Path(self.whole.root), manifest_name(self.whole))

    def _tools(self) -> Toolchain:
        """A toolchain that has looked up nothing, or only what opening the workspace needed."""
        toolchain, self._toolchain = self._toolchain or _toolchain(self.store), None
        return toolchain


def _toolchain(store: Store) -> Toolchain:
    return Toolchain(store.stat_cache, memo=store.root / TVM_MEMO)
