"""What several commands share: finding the manifest, the project's state directory, and the crash log."""

from __future__ import annotations

import argparse
from pathlib import Path

from llmbuild.errors import UsageError

MANIFEST = "buildfile.toml"
STATE_DIR = ".llmbuild"
"""Beside the manifest: the cached plan, the keys of the last build, logs, and digests of files already read."""


def find_manifest(file: Path | str | None) -> Path:
    """The manifest: `file` if given, else buildfile.toml in this directory or the nearest one above that has it.

    Raises UsageError when there is none.  The path is relative where the user's was.
    """
    if file is not None:
        path = Path(file)
        if path.is_dir():
            path = path / MANIFEST
        if not path.is_file():
            raise UsageError(f"there is no manifest {path}", fix="`llmbuild init` writes a starter manifest")
        return path
    if Path(MANIFEST).is_file():
        return Path(MANIFEST)
    here = Path.cwd()
    for directory in here.parents:
        if (directory / MANIFEST).is_file():
            return directory / MANIFEST
    raise UsageError(
        f"there is no {MANIFEST} in {here} or above it",
        fix="`llmbuild init` writes a starter manifest; `--file` names another one",
    )


def add_selection(parser: argparse.ArgumentParser) -> None:
    """The options of build and plan that choose tasks."""
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
    parser.add_argument("--force", action="store_true", help="run the named tasks again although they are cached")
    parser.add_argument(
        "--locked", action="store_true", help="fail when llmbuild.lock is not up to date, never write it"
    )


def add_file(parser: argparse.ArgumentParser) -> None:
    """The options of every command that reads a manifest and the store."""
    parser.add_argument("-f", "--file", type=Path, help=f"the manifest (default: {MANIFEST} here or above)")
    parser.add_argument("--cache-dir", type=Path, help="the store (default: $LLMBUILD_CACHE or the user's cache)")
    parser.add_argument("--offline", action="store_true", help="do not use the network")


def write_crash_log(error: BaseException) -> Path:
    """Write the traceback of a bug to the project's logs (or the temporary directory) and return the file."""
    import os
    import tempfile
    import traceback

    state = Path(STATE_DIR)
    directory = state / "logs" if state.is_dir() else Path(tempfile.gettempdir())
    path = directory / f"llmbuild-crash-{os.getpid()}.log"
    text = "".join(traceback.format_exception(error))
    try:
        directory.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError:
        path = Path(tempfile.gettempdir()) / path.name
        path.write_text(text, encoding="utf-8")
    return path
