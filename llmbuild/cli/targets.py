"""`llmbuild targets`: list the targets, and what this machine can build for each."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from llmbuild.cli.common import path_argument, print_json
from llmbuild.errors import ExitCode
from llmbuild.workspace.targets import Examined, examine_targets

if TYPE_CHECKING:
    from llmbuild.report.style import Style

HELP = "list the targets, and what this machine can do for each"
EXAMPLE = "llmbuild targets x86_64-linux-cpu-native"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", metavar="TARGET", help="show these in full (default: list all)")
    parser.add_argument(
        "-f", "--file", type=path_argument, help="the manifest whose targets/ directory is searched first"
    )
    parser.add_argument("--json", action="store_true", help="print a JSON array instead of text")
    parser.add_argument("--trust", action="store_true", help="let what the project's targets name run (llmbuild trust)")


def run(args: argparse.Namespace) -> int:
    found = examine_targets(args.names, args.file, trust=args.trust)
    if args.json:
        print_json([item.to_json() for item in found])
    elif args.names:
        print("\n\n".join(in_full(item) for item in found))
    else:
        from llmbuild.report.style import style_for

        print(_table(found, style_for(sys.stdout)))
    return ExitCode.OK


def status(item: Examined) -> str:
    """Whether the target can be built here."""
    if not item.missing:
        return "ready"
    return f"only {', '.join(item.ready)}" if item.ready else "not here"


def in_full(item: Examined) -> str:
    target = item.target
    lines = [target.name, f"  {target.description}"] if target.description else [target.name]
    lines += [f"  alias     {alias}" for alias in item.aliases]
    lines += [f"  file      {path}" for path in target.files[:1]]
    lines += [f"  extends   {path.stem}" for path in target.files[1:]]
    if item.compile_part is not None:
        lines += [f"  {part:<9} {json.dumps(value)}" for part, value in item.compile_part.items()]
    lines.append(f"  computes  in {', '.join(dtype for dtype in target.dtypes if target.can_compute(dtype))}")
    if item.compiler is not None:
        lines.append(f"  code      by {item.compiler}")
    for dtype, features in target.features.items():
        lines.append(f"  {dtype:<9} needs {', '.join(features)} where it runs")
    if target.system_lib_prefix:
        lines.append(f"  prefix    {target.system_lib_prefix} (of a .tar)")
    for artifact in target.artifacts:
        default = " (default)" if artifact == target.artifact else ""
        tool = item.tools.get(artifact)
        lines.append(f"  .{artifact:<8} " + (f"ready, with {tool}" if artifact in item.ready else "not here") + default)
    for error in item.missing:
        lines.append(f"  missing   {error.what}")
        lines += [f"            {text}" for text in (error.why, error.fix) if text]
    return "\n".join(lines)


def _table(found: Sequence[Examined], style: Style) -> str:
    """A line for each target, and below it what it is for and, where it cannot be built here, what is missing."""
    from llmbuild.report.style import wrapped

    rows = [
        (item.target.name, ", ".join(item.aliases), " ".join(item.target.artifacts), status(item)) for item in found
    ]
    head = ("TARGET", "ALIAS", "ARTIFACTS", "ON THIS MACHINE")
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(3)]

    def line(row: Sequence[str]) -> str:
        return "  ".join((*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]))

    lines = [line(head)]
    for item, row in zip(found, rows, strict=True):
        lines.append(line(row))
        lines += wrapped(item.target.description, 4, style)
        for error in item.missing[:1]:
            lines += wrapped(f"{error.what}; {error.fix}" if error.fix else error.what, 4, style)
    return "\n".join(lines)
