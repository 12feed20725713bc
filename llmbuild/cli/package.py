"""`llmbuild package`: build what packages need, and make them."""

from __future__ import annotations

import argparse

from llmbuild.cli.build import add_build_options, build_tasks
from llmbuild.cli.common import add_file, add_lock

HELP = "make packages: models and libraries as an application takes them"
EXAMPLE = "llmbuild package web"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("packages", nargs="*", metavar="NAME", help="a [package.NAME] of the manifest; default: all")
    add_file(parser)
    add_lock(parser)
    add_build_options(parser)


def run(args: argparse.Namespace) -> int:
    """As `build` does for the packages' tasks.  Raises UsageError for a name that is no package."""
    from llmbuild.workspace.packages import package_labels

    return build_tasks(args, lambda workspace: package_labels(workspace.whole, args.packages))
