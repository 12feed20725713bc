"""The user's directories, and the error where there are none: containers run with a bare user number and no HOME."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from llmbuild.errors import UsageError


def user_directory(variable: str, otherwise: str, environ: Mapping[str, str]) -> Path:
    """A directory of the user: the variable of the XDG specification, or the usual one.  Raises UsageError without a home."""
    base = environ.get(variable)
    # The specification requires that relative paths in its variables are ignored.
    return Path(base) if base and Path(base).is_absolute() else at_home(otherwise, variable)


def at_home(path: str, origin: str) -> Path:
    """A path with its `~` replaced.  Raises UsageError, naming `origin`, where the user has no home directory."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UsageError(
            "there is no home directory",
            where=path,
            why="HOME is not set, and the user is not in the password database",
            fix=f"set HOME or {origin}; the cache alone goes where LLMBUILD_CACHE or --cache-dir says",
        ) from error
