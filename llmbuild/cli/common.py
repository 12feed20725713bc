"""What several commands share: their options, printing for machines, and the crash log."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from llmbuild.canonical import Json
from llmbuild.cli.edges import say
from llmbuild.printable import printable_json
from llmbuild.workspace.place import MANIFEST, STATE_DIR, find_manifest

if TYPE_CHECKING:
    from llmbuild.workspace.workspace import Workspace


def print_json(value: Json, *, indent: int | None = 2) -> None:
    """Print a value for machines; nothing in it controls the terminal of a person who looks at it."""
    print(printable_json(json.dumps(value, indent=indent, ensure_ascii=False)))


def path_argument(text: str) -> Path:
    """A path of the command line; an empty one comes from an unset variable, and does not mean this directory."""
    if not text:
        raise argparse.ArgumentTypeError("the path is empty")
    return Path(text)


def require_number(args: argparse.Namespace, option: str, least: int, most: int | None = None, *, example: int) -> None:
    """Raise UsageError where the number of an option such as --jobs is given and lies outside `least` to `most`."""
    value = getattr(args, option.removeprefix("--").replace("-", "_"))
    if value is None or (least <= value and (most is None or value <= most)):
        return
    from llmbuild.errors import UsageError

    bounds = f"{least} or more" if most is None else f"{least} to {most}"
    raise UsageError(f"{option} must be {bounds}, not {value}", fix=f"write {option} {example}, or leave it out")


def add_selection(parser: argparse.ArgumentParser) -> None:
    """The options of build and plan that select tasks."""
    parser.add_argument(
        "tasks",
        nargs="*",
        metavar="TASK",
        help="a task ('lower[smollm2, q4f32_1, native]'), a pattern with * and ?, or a kind (link); default: all",
    )
    add_file(parser)
    parser.add_argument("-m", "--model", action="append", default=[], help="only this model (may be repeated)")
    parser.add_argument("-q", "--quantization", action="append", default=[], help="only this quantization")
    parser.add_argument("-p", "--platform", action="append", default=[], help="only this platform")
    add_lock(parser)


def add_lock(parser: argparse.ArgumentParser) -> None:
    """The options of every command that runs tasks."""
    parser.add_argument("--force", action="store_true", help="run the named tasks again although they are cached")
    parser.add_argument(
        "--locked",
        action=argparse.BooleanOptionalAction,
        help="fail when llmbuild.lock is not up to date, never write it (default: $LLMBUILD_LOCKED)",
    )


def add_file(parser: argparse.ArgumentParser) -> None:
    """The options of every command that opens a workspace."""
    add_manifest(parser)
    add_store(parser)
    parser.add_argument(
        "--offline", action=argparse.BooleanOptionalAction, help="do not use the network (default: $LLMBUILD_OFFLINE)"
    )
    parser.add_argument("--trust", action="store_true", help="let what the project's targets name run (llmbuild trust)")


def add_manifest(parser: argparse.ArgumentParser) -> None:
    """The option that names the manifest."""
    parser.add_argument("-f", "--file", type=path_argument, help=f"the manifest (default: {MANIFEST} here or above)")


def add_store(parser: argparse.ArgumentParser) -> None:
    """The option that names the store."""
    parser.add_argument(
        "--cache-dir", type=path_argument, help="the store (default: $LLMBUILD_CACHE or the user's cache)"
    )


def open_workspace(args: argparse.Namespace, *, notes: bool = True) -> Workspace:
    """The workspace that the options of `add_file` or `add_selection` name; notes about its manifest go to standard error."""
    from llmbuild.workspace.options import Options, Selection
    from llmbuild.workspace.workspace import Workspace

    options = Options(args.cache_dir, args.offline, getattr(args, "locked", None), args.trust)
    names = (tuple(getattr(args, name, ())) for name in ("model", "quantization", "platform"))
    workspace = Workspace.open(find_manifest(args.file), Selection(*names), options, on_note=print_note)
    if notes and not getattr(args, "quiet", False):
        for note in workspace.notes:
            print_note(note)
    return workspace


def print_note(note: str) -> None:
    """Print to standard error what is not wrong but worth reporting."""
    from llmbuild.report.style import style_for, wrapped

    style = style_for(sys.stderr)
    for line in wrapped(f"note: {note}", 0, style):
        print(style.paint(line, "dim"), file=sys.stderr)


def write_crash_log(error: BaseException) -> str | None:
    """Write the traceback of a bug to a new file in the project's logs, else in the temporary directory; returns its path.

    Where neither can be written, the traceback goes to standard error and there is no path.
    """
    import contextlib
    import tempfile
    import traceback

    text = "".join(traceback.format_exception(error))
    state = Path(STATE_DIR)
    logs = state / "logs"
    own = state.is_dir() and not state.is_symlink() and not logs.is_symlink()
    for directory in (logs, None) if own else (None,):
        # The name cannot be predicted and the file must not exist: a link in its place is not followed.
        with contextlib.suppress(OSError):
            if directory is not None:
                directory.mkdir(exist_ok=True)
            number, path = tempfile.mkstemp(prefix="llmbuild-crash-", suffix=".log", dir=directory)
            with os.fdopen(number, "w", encoding="utf-8", errors="backslashreplace") as file:
                file.write(text)
            return path if directory is None else os.path.relpath(path)
    say(text)
    return None
