"""`llmbuild why TASK`: why one task would run, with old and new values."""

from __future__ import annotations

import argparse
import sys

from llmbuild.cli.common import add_file, open_workspace, print_json
from llmbuild.errors import ExitCode

HELP = "explain one task: what changed, with old and new values"
EXAMPLE = "llmbuild why 'lower[smollm2, q4f32_1, x86_64-linux-cpu]'"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("task", help="a task's label, or a pattern that only one matches")
    add_file(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")


def run(args: argparse.Namespace) -> int:
    """Print the reasons; exit code 0 when the task is up to date, 1 when it is not."""
    with open_workspace(args) as workspace:
        found = workspace.why(args.task)
        if args.json:
            from llmbuild.report.plan_json import verdict_json

            print_json(verdict_json(found.verdict))
        else:
            from llmbuild.report.plan_text import why_text
            from llmbuild.report.style import style_for

            print(why_text(found.plan, found.verdict, style_for(sys.stdout)))
    return ExitCode.OK if found.verdict.state == "cached" else ExitCode.FAILED
