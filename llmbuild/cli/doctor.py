"""`llmbuild doctor`: check this machine and the project, and say what to do."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from llmbuild.cli.common import add_manifest, add_store, print_json
from llmbuild.errors import ExitCode

if TYPE_CHECKING:
    from llmbuild.report.style import Style
    from llmbuild.workspace.doctor import Finding

HELP = "check this machine and the project, and say what to do"
EXAMPLE = "llmbuild doctor --json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_manifest(parser)
    add_store(parser)
    parser.add_argument("--json", action="store_true", help="print a JSON array instead of text")


def run(args: argparse.Namespace) -> int:
    """Print what was found; exit code 1 where something fails."""
    from llmbuild.report.style import style_for
    from llmbuild.workspace.doctor import examine

    style = style_for(sys.stdout)
    findings = []
    for finding in examine(args.file, args.cache_dir):
        findings.append(finding)
        if not args.json:
            print("\n".join(lines(finding, style)), flush=True)
    if args.json:
        print_json([{"name": one.name, "state": one.state, "text": one.text, "fix": one.fix} for one in findings])
    return ExitCode.FAILED if any(one.state == "fail" for one in findings) else ExitCode.OK


def lines(finding: Finding, style: Style) -> list[str]:
    """A finding: its state, what it is about and what was found, and below it what to do."""
    from llmbuild.printable import printable
    from llmbuild.report.wrapping import wrap

    color = {"ok": "green", "warn": "yellow", "fail": "red"}[finding.state]
    first, *others = wrap(printable(f"{finding.name}: {finding.text}"), style.width - 6, later="  ")
    found = [f"{style.paint(f'{finding.state:<4}', color)}  {first}", *(f"      {line}" for line in others)]
    if finding.fix:
        found += wrap(printable(f"-> {finding.fix}"), style.width, " " * 8, " " * 11)
    return found
