"""`llmbuild targets`: list the targets, and what this machine can build for each."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence

from llmbuild.cli.common import path_argument, print_json
from llmbuild.errors import ExitCode
from llmbuild.workspace.targets import Examined, examine_targets

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
        print(_table(found))
    return ExitCode.OK


def status(item: Examined) -> list[str]:
    """Whether the target can be built here, and what to do where it cannot."""
    if not item.missing:
        return ["ready"]
    first = item.missing[0]
    lines = [f"only {', '.join(item.ready)}: {first.what}" if item.ready else f"not here: {first.what}"]
    return [*lines, f"  {first.fix}"] if first.fix else lines


def in_full(item: Examined) -> str:
    target = item.target
    lines = [target.name, f"  {target.description}"] if target.description else [target.name]
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


def _table(found: Sequence[Examined]) -> str:
    rows = [(item.target.name, " ".join(item.target.artifacts), status(item)) for item in found]
    rows.insert(0, ("TARGET", "ARTIFACTS", ["ON THIS MACHINE"]))
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    lines = []
    for name, kinds, (state, *more) in rows:
        lines.append(f"{name:<{widths[0]}}  {kinds:<{widths[1]}}  {state}")
        lines += [f"{'':<{widths[0]}}  {'':<{widths[1]}}  {text}" for text in more]
    return "\n".join(lines)
