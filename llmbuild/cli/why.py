"""`llmbuild why TASK`: why one task would run, with old and new values."""

from __future__ import annotations

import argparse
import sys

from llmbuild.cli.common import add_file, print_json
from llmbuild.errors import ExitCode

HELP = "explain one task: what changed, with old and new values"
EXAMPLE = "llmbuild why 'lower[smollm2, q4f32_1, x86_64-linux-cpu]'"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("task", help="a task's label, or a pattern that only one matches")
    add_file(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")


def run(args: argparse.Namespace) -> int:
    """Print the reasons; exit code 0 when the task is up to date, 1 when it is not."""
    from llmbuild.cli.plan import open_session
    from llmbuild.plan.planner import make_plan
    from llmbuild.plan.select import closure, find

    args.tasks, args.model, args.platform, args.quantization, args.force = [], [], [], [], False
    session = open_session(args)
    task = find(session.tasks, args.task)
    plan = make_plan(session.whole.name, closure(session.tasks, [task.label]), session.knowledge)
    verdict = next(each for each in plan.verdicts if each.task.label == task.label)
    if args.json:
        from llmbuild.report.plan_json import verdict_json

        print_json(verdict_json(verdict))
    else:
        from llmbuild.report.plan_text import why_text
        from llmbuild.report.style import style_for

        print(why_text(plan, verdict, style_for(sys.stdout)))
    session.store.close()
    return ExitCode.OK if verdict.state == "cached" else ExitCode.FAILED
