"""`llmbuild trust`: show which words of a project would run on this machine, and record that they may."""

from __future__ import annotations

import argparse

from llmbuild.cli.common import add_manifest
from llmbuild.errors import ExitCode
from llmbuild.workspace.place import find_manifest

HELP = "let a project's own linkers, flags and architectures run"
EXAMPLE = "llmbuild trust --dry-run"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_manifest(parser)
    parser.add_argument("-n", "--dry-run", action="store_true", help="only show what would be trusted")
    parser.add_argument("--forget", action="store_true", help="trust nothing of the project any more")


def run(args: argparse.Namespace) -> int:
    """Show the commands and record them; exit code 0."""
    from llmbuild.workspace.trust import own_words, remember, spoken_words

    root = find_manifest(args.file).absolute().parent
    if args.forget:
        if not args.dry_run:
            remember(root, ())
        print(f"{root}: nothing of it is trusted any more")
        return ExitCode.OK
    found = own_words(root)
    if not found:
        print(
            f"{root}: its targets name no program and no flags of their own, and it has no architectures, "
            "so there is nothing to trust"
        )
        return ExitCode.OK
    for words, use in found:
        print(f"{spoken_words(words)}\n  {use}")
    if not args.dry_run:
        remember(root, [words for words, _ in found])
        print(f"trusted in {root}, until one of these words is another one")
    return ExitCode.OK
