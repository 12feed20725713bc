"""`llmbuild clean`: remove what llmbuild put into the project."""

from __future__ import annotations

import argparse
from collections import Counter

from llmbuild.cli.common import add_manifest, add_store, print_json
from llmbuild.errors import ExitCode, UsageError
from llmbuild.workspace.cleaning import Cleaned, clean
from llmbuild.workspace.place import find_manifest

HELP = "remove what llmbuild put into the project"
EXAMPLE = "llmbuild clean --dry-run"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_manifest(parser)
    add_store(parser)
    # Else the beginning of --cache-dir; what is meant is what other tools clean.
    parser.add_argument("--cache", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("-n", "--dry-run", action="store_true", help="only say what would go")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Remove the results and records of the manifest, and say what was removed and how to get it back."""
    from llmbuild.engine.store import Store

    if args.cache:
        raise UsageError(
            "clean leaves the cache as it is",
            why="all projects share it",
            fix="`llmbuild cache gc --max-size 10GB` frees its space down to such a size",
        )
    store = Store(args.cache_dir)
    try:
        cleaned = clean(find_manifest(args.file), store, dry_run=args.dry_run)
    finally:
        store.close()
    if args.json:
        print_json(
            {
                "removed": list(cleaned.removed),
                "size": cleaned.size,
                "kept": list(cleaned.kept),
                "records": list(cleaned.records),
                "dry-run": args.dry_run,
            }
        )
    else:
        print("\n".join(_lines(cleaned, dry_run=args.dry_run)))
    return ExitCode.OK


def _lines(cleaned: Cleaned, *, dry_run: bool) -> list[str]:
    from llmbuild.report.units import files, size

    word = "would remove" if dry_run else "removed"
    if not cleaned.removed and not cleaned.records and not cleaned.kept:
        return ["there is nothing to remove"]
    places = Counter(path.rpartition("/")[0] or "." for path in cleaned.removed)
    lines = [f"{word} {place}: {files(count)}" for place, count in places.items()]
    if cleaned.records:
        lines.append(f"{word} .llmbuild: {files(len(cleaned.records))} (the last build and its logs)")
    lines += [f"kept {path}: it was edited after it was built; a build replaces it" for path in cleaned.kept]
    if cleaned.removed and not dry_run:
        lines.append(f"{size(cleaned.size)} in all; `llmbuild build` puts it back from the cache")
        lines.append("`llmbuild cache gc` frees the space of results that are in the cache")
    return lines
