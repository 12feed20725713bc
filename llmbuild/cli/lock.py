"""`llmbuild lock`: resolve every source to digests and write llmbuild.lock."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from llmbuild.cli.common import add_file, open_workspace
from llmbuild.errors import ExitCode

if TYPE_CHECKING:
    from llmbuild.engine.events import Event
    from llmbuild.workspace.pinning import LockOutcome

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
    """Write the lock file and print its changes; with --check only print, and exit with 1 if anything would change."""
    from llmbuild.engine import events
    from llmbuild.report.views import view_for

    view = view_for(quiet=args.quiet)

    def show(event: Event) -> None:
        if isinstance(event, events.Summary):
            view.close()
        elif not isinstance(event, events.Failed):
            # A failure is the command's own.
            view(event)

    with open_workspace(args, notes=False) as workspace:
        try:
            outcome = workspace.lock(upgrade=_ALL in args.upgrade or args.upgrade, check=args.check, on_event=show)
        finally:
            view.close()
    _report(outcome, check=args.check)
    return ExitCode.FAILED if args.check and outcome.stale else ExitCode.OK


def _report(outcome: LockOutcome, *, check: bool) -> None:
    """Print what changed, or would."""
    from llmbuild.report.lock_text import difference_line, difference_lines
    from llmbuild.report.style import style_for

    found, lock, name = outcome.differences, outcome.lock, outcome.path.name
    if not found and (outcome.existed or not check):
        counts = f"{_count(len(lock.sources), 'source')}, {_count(len(lock.toolchain), 'tool')}"
        print(f"{name} is up to date: {counts}")
        return
    changes = _count(len(found), "difference" if check else "change")
    if not outcome.existed:
        print(f"{name} does not exist: {changes}" if check else f"{name} written: {changes}")
    else:
        print(f"{name} is not up to date: {changes}" if check else f"{name} updated: {changes}")
    lines = [difference_line(difference, outcome.users) for difference in found]
    if lines:
        print(difference_lines(lines, style_for(sys.stdout)))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
