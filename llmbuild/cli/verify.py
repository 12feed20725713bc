"""`llmbuild verify`: load what was built and check that library and weights fit and run."""

from __future__ import annotations

import argparse
from pathlib import Path

from llmbuild.canonical import Json
from llmbuild.cli.common import path_argument, print_json
from llmbuild.cli.pick_built import add_selection, select_built
from llmbuild.errors import ExitCode

HELP = "load built libraries with their weights and run them"
EXAMPLE = "llmbuild verify smollm2 --platform x86_64-linux-cpu"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_selection(parser)
    parser.add_argument(
        "--provenance",
        nargs="*",
        metavar="PATH",
        help="instead of running them, compare results (libraries, model directories, or all) with their statements",
    )
    parser.add_argument(
        "--cache-dir", type=path_argument, help="the store (default: $LLMBUILD_CACHE or the user's cache)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object a library instead of text")


def run(args: argparse.Namespace) -> int:
    if args.provenance is not None:
        from llmbuild.cli.provenance import verify_provenance

        return verify_provenance(args)
    from llmbuild.runtime.library import configure_threads
    from llmbuild.runtime.verify import verify

    selected = select_built(args)
    configure_threads(args.threads)
    for built in selected:
        result = verify(built.library, built.weights)
        if args.json:
            record: dict[str, Json] = {
                "library": str(built.library),
                "weights": str(built.weights),
                "parameters": result.parameters,
                "shards": result.shards,
                "bytes": result.bytes,
                "decode_steps": result.decode_steps,
                "distance": result.distance,
            }
            print_json(record, indent=None)
            continue
        print(f"ok {built.label}")
        print(f"   {result.parameters} parameters agree with {_shown(built.library)}")
        print(f"   {result.shards} shards, {result.bytes / 1e6:.1f} MB, MD5 as in the index")
        print(f"   prefill and {result.decode_steps} decode steps agree to {result.distance:.1e}")
    return ExitCode.OK


def _shown(path: Path) -> str:
    """The path as a person would type it from here."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
