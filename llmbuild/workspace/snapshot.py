"""A workspace at one moment: what was observed, the selected tasks, and the records of their past."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llmbuild.engine.store import Store
from llmbuild.engine.task import Task
from llmbuild.manifest.project import Project
from llmbuild.plan.planner import Plan, make_plan
from llmbuild.plan.select import asked, closure, find, select
from llmbuild.sources.pins import promise_broken
from llmbuild.workspace.locking import RemoteFetch, remote_fetches, tree_files
from llmbuild.workspace.manifests import identity
from llmbuild.workspace.observe import World, look
from llmbuild.workspace.options import OnNote, Options
from llmbuild.workspace.patterns import with_named
from llmbuild.workspace.refusals import with_refusals
from llmbuild.workspace.store_knowledge import StoreKnowledge
from llmbuild.workspace.tool_identities import Toolchain
from llmbuild.workspace.trust import Trust

if TYPE_CHECKING:
    from llmbuild.canonical import Digest
    from llmbuild.engine.bind import Bound
    from llmbuild.engine.executor import TaskFailure
    from llmbuild.engine.tree import Tree
    from llmbuild.plan.estimates import PlanEstimate
    from llmbuild.plan.reasons import Reason
    from llmbuild.report.events import Explained


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The open store, the whole project, the selected tasks, the knowledge of their past, and the selected fetch tasks whose
    bytes come from elsewhere.  `because` has the reasons why labels of `force` run again, where that is not the user's wish;
    `names` are those by which tasks were selected, none for all of them."""

    store: Store
    whole: Project
    world: World
    tasks: tuple[Task, ...]
    force: frozenset[str]
    knowledge: StoreKnowledge
    remotes: tuple[RemoteFetch, ...]
    because: Mapping[str, tuple[Reason, ...]]
    names: tuple[str, ...]
    options: Options

    def plan(self) -> Plan:
        return make_plan(self.whole.name, self.tasks, self.knowledge, force=self.force, because=self.because)

    def plan_of(self, name: str) -> tuple[Task, Plan]:
        """One task and the plan of it and all that it needs.  Raises UsageError where the name is not that of one task."""
        task = find(self.tasks, name)
        return task, make_plan(self.whole.name, closure(self.tasks, [task.label]), self.knowledge)

    def explain(self, task: Task, bound: Bound) -> Explained:
        """Why a task runs.  The scheduler calls this before the run, which changes the records of the past."""
        from llmbuild.plan.reasons import Forced
        from llmbuild.report.events import Explained

        again = (self.because.get(task.label) or (Forced(),)) if task.label in self.force else ()
        reasons = again or self.knowledge.reasons(task, bound)
        return Explained(time=time.time(), label=task.label, reasons=reasons)

    def reworded(self, task: Task, failure: TaskFailure) -> TaskFailure:
        """The failure of a task with the user's names of the files that it read."""
        from llmbuild.workspace.spelling import reworded

        return reworded(self.whole, self.world.observed, task, failure)

    def broken_promise(self, action: Digest, tree: Tree) -> str | None:
        """How a result that another machine made differs from its pin; None where it does not."""
        fetch = next((one.fetch for one in self.remotes if one.action == action), None)
        return None if fetch is None else promise_broken(fetch.pin(self.world.lock), tree_files(tree))

    def estimate(self, plan: Plan, jobs: int | None = None, memory: int | None = None) -> PlanEstimate | None:
        """What the plan will take with `jobs` tasks at a time in `memory` bytes; None when nothing has to run."""
        from llmbuild.workspace.estimating import estimate_plan

        return estimate_plan(plan, self.store, identity(self.whole), self.knowledge.tree, jobs=jobs, memory=memory)


def take(
    whole: Project,
    project: Project,
    store: Store,
    toolchain: Toolchain,
    options: Options,
    tasks: Sequence[str],
    *,
    force: bool,
    on_note: OnNote,
) -> Snapshot:
    """Observe what `project`, the selected part of the `whole` one, needs, and select the tasks of these names with all that
    they need; with `force` the named tasks run again, or all.  Raises what `look` and `select` do."""
    trust = Trust(Path(whole.root), options.trust)
    project = with_named(project, tasks)
    world = look(
        project,
        store,
        toolchain,
        trust,
        tasks,
        offline=bool(options.offline),
        locked=bool(options.locked),
        on_note=on_note,
    )
    project = world.project
    chosen = with_refusals(select(world.tasks, tasks), project, world.observed, store, toolchain)
    forced = {task.label for task in (asked(chosen, tasks) if tasks else chosen)} if force else set()
    # Of a checkpoint that is refused nothing is fetched.
    wanted = [task for task in chosen if task.lack is None or not task.lack.refused]
    remotes = remote_fetches(project, world.lock, store, wanted)
    for remote in remotes:
        if remote.broken:
            label = remote.fetch.label
            on_note(f"{label} in the cache is not what was locked, it is fetched again: {remote.broken}")
            forced.add(label)
    because = {remote.fetch.label: (remote.changed,) for remote in remotes if remote.changed is not None}
    knowledge = StoreKnowledge(store, Path(whole.root), world.observed, identity(whole))
    return Snapshot(
        store,
        whole,
        world,
        chosen,
        frozenset(forced),
        knowledge,
        tuple(remotes),
        because,
        tuple(tasks),
        options,
    )
