"""`llmbuild plan`: what a build would run, and why."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from llmbuild.cli.common import add_selection, print_json
from llmbuild.errors import ExitCode
from llmbuild.workspace.place import find_manifest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from llmbuild.engine.store import Store
    from llmbuild.engine.task import Task
    from llmbuild.manifest.resolved import Project
    from llmbuild.plan.estimates import PlanEstimate
    from llmbuild.plan.planner import Plan
    from llmbuild.plan.reasons import Reason
    from llmbuild.workspace.locking import Remote
    from llmbuild.workspace.observe import World
    from llmbuild.workspace.store_knowledge import StoreKnowledge

HELP = "show what a build would run, and why"
EXAMPLE = "llmbuild plan --platform x86_64-linux-cpu --format json"
FORMATS = ("text", "json", "dot", "mermaid", "markdown", "github-matrix")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_selection(parser)
    parser.add_argument("--format", choices=FORMATS, default="text", help="default: text")
    parser.add_argument("--json", action="store_const", const="json", dest="format", help="short for --format json")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a build would do anything")
    parser.add_argument("--dry-run", action="store_true", help="accepted, and changes nothing: a plan never builds")


def run(args: argparse.Namespace) -> int:
    """Print the plan; exit code 0, or with --check 1 when something is stale."""
    session = open_session(args)
    if args.offline:
        from llmbuild.workspace.locking import require_offline

        # As a build would, and before it: a plan that cannot be carried out is no plan.
        require_offline(session.remotes)
    plan = session.plan()
    print_plan(session, plan, args.format)
    session.store.close()
    return ExitCode.FAILED if args.check and plan.stale else ExitCode.OK


@dataclass(frozen=True, slots=True)
class Session:
    """Everything a command needs that plans: the open store, the whole project, the selected tasks, what is known, and the
    selected fetch tasks whose bytes come from elsewhere."""

    store: Store
    whole: Project
    world: World
    tasks: tuple[Task, ...]
    force: frozenset[str]
    knowledge: StoreKnowledge
    remotes: tuple[Remote, ...] = ()
    because: Mapping[str, tuple[Reason, ...]] = field(default_factory=dict)
    """Why a label of `force` runs again, where that is not the user's wish."""

    def plan(self) -> Plan:
        from llmbuild.plan.planner import make_plan

        return make_plan(self.whole.name, self.tasks, self.knowledge, force=self.force, because=self.because)

    def estimate(self, plan: Plan) -> PlanEstimate | None:
        """What the plan will take; None when nothing has to run."""
        from llmbuild.workspace.estimating import estimate_plan
        from llmbuild.workspace.manifests import identity

        return estimate_plan(plan, self.store, identity(self.whole), self.knowledge.tree)


def open_session(args: argparse.Namespace) -> Session:
    """From the command line (see `add_selection`) to selected tasks; notes about the manifest go to standard error."""
    from llmbuild.engine.store import Store
    from llmbuild.plan.select import asked, narrow, select
    from llmbuild.workspace.locking import remote_fetches
    from llmbuild.workspace.manifests import identity
    from llmbuild.workspace.observe import load_manifest, look
    from llmbuild.workspace.store_knowledge import StoreKnowledge
    from llmbuild.workspace.toolchain import TVM_MEMO, Toolchain

    path = find_manifest(args.file)
    store = Store(args.cache_dir)
    toolchain = Toolchain(store.stat_cache, memo=store.root / TVM_MEMO)
    manifest = load_manifest(path, toolchain)
    if not getattr(args, "quiet", False):
        print_notes(manifest.notes)
    project = narrow(manifest.project, models=args.model, platforms=args.platform, schemes=args.quantization)
    world = look(project, store, toolchain, offline=args.offline, locked=getattr(args, "locked", False))
    tasks = select(world.tasks, args.tasks)
    forced = {task.label for task in (asked(tasks, args.tasks) if args.tasks else tasks)} if args.force else set()
    remotes = remote_fetches(project, world.lock, store, tasks)
    for remote in remotes:
        if remote.broken:
            print_notes(
                [f"{remote.fetch.label} in the cache is not what was locked, it is fetched again: {remote.broken}"]
            )
            forced.add(remote.fetch.label)
    because = {remote.fetch.label: (remote.changed,) for remote in remotes if remote.changed is not None}
    knowledge = StoreKnowledge(store, manifest.root, world.observed, identity(manifest.project))
    return Session(store, manifest.project, world, tasks, frozenset(forced), knowledge, tuple(remotes), because)


def print_notes(notes: Iterable[str]) -> None:
    """Say on standard error what is not wrong but worth knowing."""
    from llmbuild.report.style import style_for, wrapped

    style = style_for(sys.stderr)
    for note in notes:
        for line in wrapped(f"note: {note}", 0, style):
            print(style.paint(line, "dim"), file=sys.stderr)


def print_plan(session: Session, plan: Plan, form: str) -> None:
    """Print a plan to standard output in one of FORMATS; those for people and programs have an estimate."""
    match form:
        case "text":
            from llmbuild.report.plan_text import plan_text
            from llmbuild.report.style import style_for

            print(plan_text(plan, style_for(sys.stdout), session.estimate(plan)))
        case "json":
            from llmbuild.report.plan_json import plan_json

            print_json(plan_json(plan, session.estimate(plan)))
        case "markdown":
            from llmbuild.report.plan_ci import plan_markdown

            print(plan_markdown(plan, session.estimate(plan)))
        case "github-matrix":
            from llmbuild.report.plan_ci import github_matrix

            # One line, as `>> "$GITHUB_OUTPUT"` wants it.
            print_json(github_matrix(plan), indent=None)
        case _:
            from llmbuild.report.plan_json import plan_dot, plan_mermaid

            print(plan_dot(plan) if form == "dot" else plan_mermaid(plan))
