"""What `chat` does where nothing is built that runs on this machine: it offers to build it."""

from __future__ import annotations

import argparse
import shlex
import sys
from typing import TYPE_CHECKING

from llmbuild.cli.common import print_note
from llmbuild.cli.pick_built import build_command, require_threads, select_built
from llmbuild.errors import UsageError

if TYPE_CHECKING:
    from llmbuild.manifest.locate import BuiltModel
    from llmbuild.manifest.project import Project


def select_or_build(args: argparse.Namespace) -> list[BuiltModel]:
    """The libraries that the options name and that run here.  Where there is none, it is built: with --build, or when the person
    at the terminal agrees.

    Raises UsageError, with the command that builds it, where nobody agrees; and what a build raises."""
    from llmbuild.manifest.load import load_project
    from llmbuild.manifest.locate import built, choose, runs_here
    from llmbuild.workspace.host_build import with_host
    from llmbuild.workspace.place import find_manifest

    require_threads(args)
    if args.library is not None or args.weights is not None or args.platform is not None:
        return select_built(args)
    manifest = find_manifest(args.file)
    project = load_project(manifest)
    every = choose(project, args.model, args.quantization, None, runnable_only=False)
    found = [built(project, cell) for cell in every if cell.weights and runs_here(project, cell)]
    if there := [one for one in found if one.there]:
        return there
    if len(found) > 1:
        # Which of them is to be built is for the user to say.
        return select_built(args)
    own = bool(found)
    if not own:
        project = with_host(manifest, args.model, args.quantization)
        named = {cell.platform for cell in every}
        cells = choose(project, args.model, args.quantization, None)
        found = [built(project, cell) for cell in cells if cell.platform not in named]
    (model,) = found
    if not model.there:
        _agree(args, model, own=own)
        _build(project, model, own=own)
    return [model]


def _agree(args: argparse.Namespace, model: BuiltModel, *, own: bool) -> None:
    """Ask whether to build; raises UsageError where that is refused, or nobody is there who could be asked."""
    if args.build:
        return
    assert model.cell is not None
    name = f"{model.cell.model} in {model.cell.scheme}"
    if sys.stdin.isatty() and sys.stderr.isatty():
        print_note(f"{name} is not built for this machine")
        print("Build it for this machine now? [Y/n] ", end="", file=sys.stderr, flush=True)
        answer = sys.stdin.readline()
        if answer.strip().lower() in ("", "y", "yes") and answer:
            return
    file = ["-f", str(args.file)] if args.file is not None else []
    here = shlex.join(["llmbuild", "chat", *file, model.cell.model, "-q", model.cell.scheme, "--build"])
    raise UsageError(
        f"{name} is not built for this machine",
        why=None if own else "the manifest builds it for other platforms only",
        fix=f"run `{build_command(args, model) if own else here}`",
    )


def _build(project: Project, model: BuiltModel, *, own: bool) -> None:
    """Build one library with its weights, shown as `llmbuild build` does; `own` says that the manifest's file has it.  Ends the
    command where a task fails."""
    from llmbuild.engine.store import Store
    from llmbuild.report.views import view_for
    from llmbuild.workspace.expanded import Manifest
    from llmbuild.workspace.options import Options, Selection
    from llmbuild.workspace.outcome import BuildError
    from llmbuild.workspace.workspace import Workspace

    cell = model.cell
    assert cell is not None
    selection = Selection((cell.model,), (cell.scheme,), (cell.platform,))
    options = Options(unlisted=frozenset() if own else frozenset({cell.platform}))
    view = view_for()
    with Workspace(Manifest(project), Store(), selection, options, print_note) as workspace:
        try:
            workspace.build(on_event=view)
        except BuildError as error:
            # Each failure was printed when it happened.
            raise SystemExit(int(error.exit_code)) from error
        finally:
            view.close()
