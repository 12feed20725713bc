"""`llmbuild build`: bring the selected tasks up to date and put their outputs into the project."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from llmbuild.cli.common import add_selection, open_workspace, path_argument, require_number
from llmbuild.errors import ExitCode, Interrupted, StoreError
from llmbuild.variables import MOST_JOBS

if TYPE_CHECKING:
    from llmbuild.workspace.workspace import Workspace

HELP = "build what is not up to date"
EXAMPLE = "llmbuild build --model smollm2 --jobs 2"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_selection(parser)
    add_build_options(parser)


def add_build_options(parser: argparse.ArgumentParser) -> None:
    """The options that say how tasks run."""
    parser.add_argument(
        "-j",
        "--jobs",
        type=int,
        metavar="N",
        help="tasks at a time (default: $LLMBUILD_JOBS, the user's setting, or the number of CPUs)",
    )
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
    parser.add_argument(
        "--executor",
        metavar="NAME",
        help="where tasks run (default: $LLMBUILD_EXECUTOR, the user's setting, or local; see docs/how-to-add.md)",
    )
    parser.add_argument(
        "--remote",
        metavar="CACHE",
        help="another cache that results are taken from and given to: a directory, or NAME:PLACE "
        "(default: $LLMBUILD_REMOTE; see docs/cache.md)",
    )
    parser.add_argument("--events", type=path_argument, metavar="FILE", help="write what happens as JSON lines")
    parser.add_argument(
        "--provenance",
        action="store_true",
        help="write what each result was made from to <output>/provenance (or: provenance = true in the manifest)",
    )
    said = parser.add_mutually_exclusive_group()
    said.add_argument("--quiet", action="store_true", help="print only failures and the summary")
    said.add_argument(
        "-v",
        "--verbose",
        action="store_true",
        help="also print what each task printed, with the command lines of its compilers and linkers, when it ends, and "
        "the tasks that are cached",
    )


def run(args: argparse.Namespace) -> int:
    """Build; the exit code is that of the first failed task in plan order."""
    return build_tasks(args, lambda _workspace: args.tasks)


def build_tasks(args: argparse.Namespace, names: Callable[[Workspace], Sequence[str]]) -> int:
    """Build the tasks of these names, or with --dry-run print the plan; the exit code is that of `run`."""
    from llmbuild.engine.memory import budget

    require_number(args, "--jobs", 1, MOST_JOBS, example=4)
    memory = budget(args.memory)
    with open_workspace(args) as workspace:
        tasks = names(workspace)
        if not args.dry_run:
            return _build(args, workspace, tasks, memory)
        from llmbuild.cli.plan import print_plan
        from llmbuild.workspace.absent import require_accepted
        from llmbuild.workspace.memory import require_memory

        snapshot = workspace.look(*tasks, force=args.force, partial=args.keep_going)
        plan = snapshot.plan()
        print_plan(snapshot, plan, "text", fold=not args.verbose, jobs=args.jobs, memory=memory)
        require_accepted(plan)
        require_memory(snapshot, plan)
        return ExitCode.OK


def _build(args: argparse.Namespace, workspace: Workspace, tasks: Sequence[str], memory: int | None) -> int:
    from llmbuild.executors.named import NamedExecutor
    from llmbuild.report.views import view_for
    from llmbuild.workspace.outcome import BuildError

    view = view_for(quiet=args.quiet, log=workspace.log if args.verbose else None)
    code = ExitCode.OK
    try:
        workspace.build(
            *tasks,
            force=args.force,
            jobs=args.jobs,
            memory=memory,
            keep_going=args.keep_going,
            check=args.check,
            provenance=args.provenance,
            events=args.events,
            on_event=view,
            executor=NamedExecutor(workspace.store, args.executor),
            remote=args.remote,
        )
    except BuildError as error:
        # Each failure was printed when it happened.
        code = error.exit_code
    except Interrupted:
        code = ExitCode.INTERRUPTED
    finally:
        view.close()
    _job_summary(workspace.last_build)
    return code


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
