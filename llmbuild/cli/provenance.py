"""`llmbuild verify --provenance`: verify results against their statements, and the statements against the cache."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from llmbuild.cli.common import print_json
from llmbuild.errors import ExitCode, LlmbuildError, UsageError, raise_all

if TYPE_CHECKING:
    from llmbuild.canonical import Json

ALL = "all"


def verify_provenance(args: argparse.Namespace) -> int:
    """Verify the named results, or all of the manifest; raises the errors after all were verified."""
    from llmbuild.engine.store import Store
    from llmbuild.workspace.place import find_manifest
    from llmbuild.workspace.provenance import all_results, check_claims, named_result

    errors: list[LlmbuildError] = []
    if args.provenance in ([], [ALL]):
        claims = all_results(find_manifest(args.file), args.model, args.quantization, args.platform, errors)
    else:
        _require_no_selection(args)
        claims = [named_result(Path(name)) for name in args.provenance]
    store = Store(args.cache_dir)
    for claim, checked in check_claims(store, claims, errors):
        if args.json:
            record: dict[str, Json] = {
                "artifact": str(checked.artifact),
                "statement": str(claim.statement),
                "files": checked.files,
                "sources": checked.sources,
                "steps": checked.steps,
                "known": checked.known,
            }
            print_json(record, indent=None)
        else:
            print(f"ok {checked.artifact}")
            print(f"   {checked.files} files as in {claim.statement}")
            total = checked.sources + checked.steps
            print(
                f"   {checked.sources} source files and {checked.steps} steps, {checked.known} of {total} in the cache"
            )
    store.close()
    raise_all(errors)
    return ExitCode.OK


def _require_no_selection(args: argparse.Namespace) -> None:
    for name in ("model", "quantization", "platform", "library", "weights"):
        if getattr(args, name) is not None:
            raise UsageError(
                f"{name} chooses among the results of a manifest, and --provenance names some itself",
                fix="leave out one of the two",
            )
