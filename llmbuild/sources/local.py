"""Sources on this machine: a directory with a checkpoint, or one GGUF file.

Planning digests the needed files (through a cache keyed by their stat), so the key holds contents and no path.  Fetching
copies them and checks that they are still what was planned.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

from llmbuild.canonical import Digest
from llmbuild.errors import FetchError, InputError, did_you_mean
from llmbuild.sources.copying import Meter, Progress, copy_stream
from llmbuild.sources.select import check_relative, needed_files, output_name


class StatCache(Protocol):
    """Gives the SHA-256 of a file, from memory where the file is unchanged."""

    def digest(self, path: Path) -> Digest: ...


def observe_directory(path: Path, source_format: str | None, statcache: StatCache) -> dict[str, Digest]:
    """Name and SHA-256 of each needed file.

    Raises FetchError when the directory is missing or cannot be read, InputError when it is no checkpoint.
    """
    with _unreadable(path):
        if not path.is_dir():
            raise _missing(path, "a directory")
        names = [entry.name for entry in path.iterdir() if entry.is_file()]
    needed = needed_files(names, source_format, str(path))
    for name in needed:
        try:
            check_relative(name)
        except ValueError as error:
            raise InputError(
                "a file of the checkpoint has a name that cannot be kept",
                where=str(path),
                why=f"{os.fsencode(name)!r:.300} {error}",
                fix="rename the file",
            ) from error
    return {name: statcache.digest(path / name) for name in needed}


def observe_gguf(path: Path, statcache: StatCache) -> dict[str, Digest]:
    """The SHA-256 of a GGUF file under its output name.  Raises FetchError when it is missing."""
    with _unreadable(path):
        if not path.is_file():
            raise _missing(path, "a file")
    return {output_name(path.name): statcache.digest(path)}


def copy_directory(path: Path, files: Mapping[str, Digest], out: Path, progress: Progress) -> None:
    """Copy the planned files of a directory; raises FetchError when one has changed since."""
    _copy({path / name: (output_name(name), digest) for name, digest in files.items()}, out, progress)


def copy_gguf(path: Path, files: Mapping[str, Digest], out: Path, progress: Progress) -> None:
    """Copy a GGUF file; raises FetchError when it has changed since it was planned."""
    _copy({path: next(iter(files.items()))}, out, progress)


def _copy(files: Mapping[Path, tuple[str, Digest]], out: Path, progress: Progress) -> None:
    with _unreadable(next(iter(files))):
        meter = Meter(progress, sum(path.stat().st_size for path in files))
    for path, (name, digest) in files.items():
        with _unreadable(path), path.open("rb") as source:
            found, _ = copy_stream(source, out / name, meter.add)
        if found != digest:
            raise FetchError(
                "changed while the build was running",
                where=str(path),
                why=f"its SHA-256 was {digest}, now it is {found}",
                fix="run the build again",
            )


@contextlib.contextmanager
def _unreadable(path: Path) -> Iterator[None]:
    """Turn what the system says of a source into one FetchError."""
    try:
        yield
    except OSError as error:
        raise FetchError(
            "cannot be read", where=str(error.filename or path), why=error.strerror or str(error)
        ) from error


def _missing(path: Path, kind: str) -> FetchError:
    near = did_you_mean(path.name, [entry.name for entry in path.parent.iterdir()]) if path.parent.is_dir() else None
    why = f"it is not {kind}" if path.exists() else "there is no such file or directory"
    return FetchError("the source does not exist", where=str(path), why=why, fix=near)
