"""`llmbuild verify`: load what was built and check that library and weights fit and run."""

from __future__ import annotations

import argparse
from pathlib import Path

from llmbuild.canonical import Json
from llmbuild.cli.common import add_store, print_json
from llmbuild.cli.pick_built import add_selection, select_built
from llmbuild.errors import ExitCode, UsageError

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
        "--against",
        choices=["transformers"],
        help="also compare logits with those of the model's own checkpoint there (needs llmbuild[transformers])",
    )
    add_store(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object a library instead of text")


def run(args: argparse.Namespace) -> int:
    if args.provenance is not None:
        from llmbuild.cli.provenance import verify_provenance

        return verify_provenance(args)
    if args.against is not None:
        return _against(args)
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


def _against(args: argparse.Namespace) -> int:
    """Compare with transformers; exit code 7 where a library is further away than its compute dtype explains."""
    from llmbuild.runtime.against import Agreement, require_transformers
    from llmbuild.runtime.library import configure_threads
    from llmbuild.runtime.verify import TOLERANCE
    from llmbuild.workspace.against import compare, quantize_job
    from llmbuild.workspace.options import Options
    from llmbuild.workspace.place import find_manifest
    from llmbuild.workspace.workspace import Workspace

    if args.library is not None:
        raise UsageError(
            "--against needs the manifest, which names the checkpoint", fix="name a model of it instead of --library"
        )
    require_transformers()
    selected = select_built(args)
    configure_threads(args.threads)

    def said(of: Agreement) -> Json:
        return {"distance": of.distance, "same": of.same, "positions": of.positions}

    with Workspace.open(find_manifest(args.file), options=Options(args.cache_dir)) as workspace:
        for one in selected:
            assert one.cell is not None
            with quantize_job(workspace, one.cell.model, one.cell.scheme) as job:
                found = compare(job, one.library, one.weights, TOLERANCE)
            if args.json:
                record: dict[str, Json] = {"library": str(one.library), "weights": str(one.weights)}
                print_json(record | {"stored": said(found.stored), "original": said(found.original)}, indent=None)
                continue
            print(f"ok {one.label}")
            for what, of in (("the weights that it has", found.stored), ("those of the checkpoint", found.original)):
                print(
                    f"   transformers with {what}: logits differ by {of.distance:.1e}, "
                    f"the likeliest token is the same at {of.same} of {of.positions} positions"
                )
    return ExitCode.OK


def _shown(path: Path) -> str:
    """The path as a person would type it from here."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
