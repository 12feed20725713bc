"""What `verify` and `chat` share: options that name a built library, by manifest or by path."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from llmbuild.cli.common import add_manifest, path_argument, require_number
from llmbuild.errors import UsageError

if TYPE_CHECKING:
    from llmbuild.manifest.locate import BuiltModel


def add_selection(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", nargs="?", help="a model of the manifest (default: every one)")
    add_manifest(parser)
    parser.add_argument("-q", "--quantization", help="a quantization of the manifest")
    parser.add_argument("-p", "--platform", help="a platform of the manifest")
    parser.add_argument("--library", type=path_argument, help="a library file, instead of a manifest")
    parser.add_argument("--weights", type=path_argument, help="the model directory that goes with --library")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: all cores)")


def require_threads(args: argparse.Namespace) -> None:
    """Raise UsageError for a number of threads that the runtime does not start."""
    from llmbuild.runtime.library import MOST_THREADS

    require_number(args, "--threads", 1, MOST_THREADS, example=4)


def select_built(args: argparse.Namespace) -> list[BuiltModel]:
    """The built libraries that the options name; raises UsageError when none match."""
    from llmbuild.manifest.locate import BuiltModel, built, choose

    require_threads(args)
    if (args.library is None) != (args.weights is None):
        raise UsageError("--library and --weights go together")
    if args.library is not None:
        return [BuiltModel(args.library.name, args.library, args.weights)]
    from llmbuild.manifest.load import load_project
    from llmbuild.workspace.named_platforms import platforms_named
    from llmbuild.workspace.place import find_manifest

    project = load_project(find_manifest(args.file))
    named = () if args.platform is None else platforms_named(project, (args.platform,))
    # An alias that calls several platforms is refused as a name that the manifest does not have.
    cells = choose(project, args.model, args.quantization, named[0] if len(named) == 1 else args.platform)
    found = [built(project, cell) for cell in cells]
    missing = [each for each in found if not each.there]
    if missing:
        raise UsageError(
            f"not built yet: {missing[0].label}",
            where=project.file,
            fix=f"run `{build_command(args, missing[0])}`",
        )
    return found


def build_command(args: argparse.Namespace, model: BuiltModel) -> str:
    """The command that builds one library with its weights."""
    import shlex

    assert model.cell is not None, "only what a manifest names is built"
    words = ["llmbuild", "build", *(["-f", str(args.file)] if args.file is not None else [])]
    return shlex.join([*words, "-m", model.cell.model, "-q", model.cell.scheme, "-p", model.cell.platform])
