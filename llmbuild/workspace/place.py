"""The place of a manifest: how it is found, and its state directory beside it."""

from __future__ import annotations

import os
from pathlib import Path

from llmbuild.errors import UsageError
from llmbuild.printable import is_text

MANIFEST = "buildfile.toml"
STATE_DIR = ".llmbuild"
"""Beside the manifest: the cached plan, the keys of the last build, logs, and digests of files already read."""


def state_of(root: Path, manifest: str) -> Path:
    """The state directory of one manifest of a project: its last build, and its logs."""
    state = root / STATE_DIR
    return state if manifest == MANIFEST else state / "manifests" / manifest


def owns_state(root: Path, directory: Path) -> bool:
    """Whether no symbolic link leads from a project to a directory of its state, so that files there are its own."""
    while directory != root:
        if os.path.islink(directory):  # noqa: PTH114
            return False
        directory = directory.parent
    return True


def find_manifest(file: Path | str | None) -> Path:
    """The manifest: `file` if given, else buildfile.toml in this directory or the nearest one above that has it.

    Raises UsageError when there is none, or when the state directory beside it leads elsewhere.  The path is relative
    where the user's was.
    """
    if file is not None:
        path = Path(file)
        # A Path raises where a name is too long.
        if os.path.isdir(path):  # noqa: PTH112
            path = path / MANIFEST
        if not os.path.isfile(path):  # noqa: PTH113
            raise UsageError(f"there is no manifest {path}", fix="`llmbuild init` writes a starter manifest")
        require_text_path(path.absolute(), "the project's directory")
        require_own_state(path.absolute().parent)
        return path
    here = _here()
    for directory in (here, *here.parents):
        if (directory / MANIFEST).is_file():
            require_text_path(directory, "the project's directory")
            require_own_state(directory)
            return Path(MANIFEST) if directory == here else directory / MANIFEST
    raise UsageError(
        f"there is no {MANIFEST} in {here} or above it",
        fix="`llmbuild init` writes a starter manifest; `--file` names another one",
    )


def require_own_state(root: Path) -> None:
    """Raise UsageError for a link, which a repository may bring along: llmbuild would write to files outside the project."""
    if os.path.islink(root / STATE_DIR):  # noqa: PTH114
        raise UsageError(
            "the directory of llmbuild's own files is a symbolic link",
            where=str(root / STATE_DIR),
            why=f"it leads to {os.readlink(root / STATE_DIR)}, outside the project's control",  # noqa: PTH115
            fix="remove the link; llmbuild makes the directory",
        )


def _here() -> Path:
    try:
        return Path.cwd()
    except FileNotFoundError as error:
        raise UsageError(
            "the current directory is gone", fix="change to one that is there, or name the manifest with --file"
        ) from error


def require_text_path(path: os.PathLike[str], what: str) -> None:
    """Raise UsageError for a path that is not text."""
    if not is_text(os.fspath(path)):
        raise UsageError(
            f"{what} has a name that is not UTF-8",
            where=os.fspath(path),
            why="keys and records hold names as UTF-8",
            fix="rename it, or choose a UTF-8 locale, such as LC_ALL=C.UTF-8",
        )
