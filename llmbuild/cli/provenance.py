"""`llmbuild verify --provenance`: results against their statements, and the statements against the cache."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from llmbuild.cli.common import print_json
from llmbuild.errors import ExitCode, LlmbuildError, MultiError, UsageError, VerifyError, raise_all

if TYPE_CHECKING:
    from llmbuild.canonical import Digest, Json
    from llmbuild.engine.store import Store
    from llmbuild.engine.tree import Tree

ALL = "all"


def verify_provenance(args: argparse.Namespace) -> int:
    """Check the named results, or all of the manifest; raises what is wrong after all were looked at."""
    from llmbuild.engine.store import Store
    from llmbuild.report.provenance_check import check

    errors: list[LlmbuildError] = []
    everything = args.provenance in ([], [ALL])
    if not everything:
        _require_no_selection(args)
    paths = _all(args, errors) if everything else [_named(Path(name)) for name in args.provenance]
    store = Store(args.cache_dir)
    for path, asked in paths:
        try:
            checked = check(path, lambda action: _recorded(store, action), asked)
        except MultiError as error:
            errors += error.errors
            continue
        except LlmbuildError as error:
            errors.append(error)
            continue
        if args.json:
            record: dict[str, Json] = {
                "artifact": str(checked.artifact),
                "statement": str(path),
                "files": checked.files,
                "sources": checked.sources,
                "steps": checked.steps,
                "known": checked.known,
            }
            print_json(record, indent=None)
        else:
            print(f"ok {checked.artifact}")
            print(f"   {checked.files} files as in {path}")
            total = checked.sources + checked.steps
            print(
                f"   {checked.sources} source files and {checked.steps} steps, {checked.known} of {total} in the cache"
            )
    store.close()
    raise_all(errors)
    return ExitCode.OK


def _all(args: argparse.Namespace, errors: list[LlmbuildError]) -> list[tuple[Path, Path]]:
    """The statements of what the manifest builds, as far as it is selected, and that is there, each with that; what has none is
    an error."""
    from llmbuild.manifest.load import load_project
    from llmbuild.manifest.locate import choose
    from llmbuild.report.provenance import statement_path
    from llmbuild.workspace.place import find_manifest

    project = load_project(find_manifest(args.file))
    cells = choose(project, args.model, args.quantization, args.platform, runnable_only=False)
    artifacts = dict.fromkeys(path for cell in cells for path in (cell.weights, cell.library) if path)
    paths = []
    manifest = Path(project.file)
    for artifact in artifacts:
        statement = manifest.parent / statement_path(project.output, artifact)
        if statement.is_file():
            paths.append((statement, manifest.parent / artifact))
        elif (Path(project.root) / artifact).exists():
            errors.append(
                VerifyError(
                    "there is no statement of where this came from",
                    where=str(manifest.parent / artifact),
                    fix="write provenance = true into [project] and build, or run `llmbuild build --provenance`",
                )
            )
    if not paths and not errors:
        raise UsageError("nothing is built yet", where=project.file, fix="run `llmbuild build --provenance`")
    return paths


def _require_no_selection(args: argparse.Namespace) -> None:
    for name in ("model", "quantization", "platform", "library", "weights"):
        if getattr(args, name) is not None:
            raise UsageError(
                f"{name} chooses among the results of a manifest, and --provenance names some itself",
                fix="leave out one of the two",
            )


def _named(path: Path) -> tuple[Path, Path | None]:
    """The statement that is named; or the named library or model directory with its statement."""
    from llmbuild.report.provenance import DIRECTORY, SUFFIX

    if path.name.endswith(SUFFIX):
        return path, None
    for above in list(path.absolute().parents)[:2]:
        statement = above / DIRECTORY / f"{path.name}{SUFFIX}"
        if statement.is_file():
            return statement, path
    raise UsageError(
        "there is no statement of where this came from",
        where=str(path),
        fix="run `llmbuild build --provenance`, or name the .intoto.json file",
    )


def _recorded(store: Store, action: Digest) -> Tree | None:
    from llmbuild.errors import StoreError

    trace = store.traces.get(action)
    if trace is None:
        return None
    try:
        return store.cas.get_tree(trace.output)
    except StoreError:
        return None
