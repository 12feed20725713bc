"""`llmbuild plan`: what a build would run, and why."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from llmbuild.cli.common import add_selection, open_workspace, print_json, print_note
from llmbuild.errors import ExitCode, UsageError
from llmbuild.workspace.absent import require_accepted, require_tools

if TYPE_CHECKING:
    from llmbuild.plan.planner import Plan
    from llmbuild.workspace.snapshot import Snapshot

HELP = "show what a build would run, and why"
EXAMPLE = "llmbuild plan --platform x86_64-linux-cpu --format json"
FORMATS = ("text", "json", "dot", "mermaid", "markdown", "github-matrix")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_selection(parser)
    parser.add_argument("--format", choices=FORMATS, default="text", help="default: text")
    parser.add_argument("--json", action="store_const", const="json", dest="format", help="short for --format json")
    parser.add_argument(
        "-v", "--verbose", action="store_true", help="a line for each task, also where many share a reason"
    )
    parser.add_argument("--stale", action="store_true", help="leave out what is up to date")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a build would do anything")
    parser.add_argument("--strict", action="store_true", help="fail where a task is blocked")
    parser.add_argument(
        "--device-memory",
        action="store_true",
        help="show instead how much memory each library needs where it runs, with a full window",
    )
    parser.add_argument("--dry-run", action="store_true", help="accepted, and changes nothing: a plan never builds")


def run(args: argparse.Namespace) -> int:
    """Print the plan; exit code 0, with --check 1 when something is stale.

    Raises InputError where a checkpoint is refused, which no machine can build, and UsageError where a library needs more memory
    than a package may or another manifest has results in the same places; with --strict, what blocked tasks lack."""
    from llmbuild.workspace.memory import require_memory
    from llmbuild.workspace.neighbours import require_no_claims

    with open_workspace(args) as workspace:
        snapshot = workspace.look(*args.tasks, force=args.force)
        plan = snapshot.plan()
        if args.device_memory:
            _print_memory(snapshot, plan, args.format)
        else:
            print_plan(snapshot, plan, args.format, stale=args.stale, fold=not args.verbose)
        if args.strict:
            require_tools(plan, blocked_only=True)
        require_accepted(plan)
        require_no_claims(snapshot)
        require_memory(snapshot, plan)
    return ExitCode.FAILED if args.check and plan.stale else ExitCode.OK


def _print_memory(snapshot: Snapshot, plan: Plan, form: str) -> None:
    from llmbuild.packages.memory import sizes_of
    from llmbuild.report.memory_text import Line, memory_json, memory_text
    from llmbuild.report.style import style_for
    from llmbuild.workspace.memory import device_memory

    if form not in ("text", "json"):
        raise UsageError(f"the memory of libraries has no format '{form}'", fix="use --format text or json")
    found, unknown = device_memory(snapshot, plan)
    lines = [Line(one.model, one.scheme, one.platform, sizes_of(one.record).tokens, one.use()) for one in found]
    if form == "json":
        print_json(memory_json(lines, unknown))
    else:
        print(memory_text(lines, unknown, style_for(sys.stdout)))


def print_plan(
    snapshot: Snapshot,
    plan: Plan,
    form: str,
    *,
    stale: bool = False,
    fold: bool = True,
    jobs: int | None = None,
    memory: int | None = None,
) -> None:
    """Print a plan to standard output in one of FORMATS; those for people and programs have an estimate, for a build with
    these `jobs` and `memory` bytes.  With `stale`, what is up to date is left out; without `fold`, each task has a line."""
    whole = plan
    plan = plan.only_stale() if stale else plan
    match form:
        case "text":
            from llmbuild.report.plan_text import plan_text
            from llmbuild.report.style import style_for

            print(plan_text(plan, style_for(sys.stdout), snapshot.estimate(whole, jobs, memory), fold=fold))
            if not snapshot.names:
                from llmbuild.workspace.packages import outdated_note

                outputs = {one.task.label: one.output for one in whole.verdicts if one.output is not None}
                if (note := outdated_note(snapshot, outputs)) is not None:
                    print_note(note)
        case "json":
            from llmbuild.report.plan_json import plan_json

            print_json(plan_json(plan, snapshot.estimate(whole, jobs, memory)))
        case "markdown":
            from llmbuild.report.plan_ci import plan_markdown

            print(plan_markdown(plan, snapshot.estimate(whole, jobs, memory)))
        case "github-matrix":
            from llmbuild.report.plan_ci import github_matrix

            # One line, as `>> "$GITHUB_OUTPUT"` wants it.
            print_json(github_matrix(whole, snapshot.whole.platforms, stale_only=stale), indent=None)
        case _:
            from llmbuild.report.plan_json import plan_dot, plan_mermaid

            print(plan_dot(plan) if form == "dot" else plan_mermaid(plan))
