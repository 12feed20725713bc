"""Sources on this machine: a directory with a checkpoint, or one GGUF file.

Planning digests the needed files (through a cache keyed by their stat), so the key depends on contents and on no path.
Fetching copies them and checks that they are still what was planned; large files of weights are copied only where the caller
wants that.
"""

from __future__ import annotations

import contextlib
import os
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from llmbuild.canonical import Digest, digest_bytes, known_digest
from llmbuild.errors import FetchError, InputError, did_you_mean
from llmbuild.sources.copying import Meter, Progress, copy_stream
from llmbuild.sources.kind import GoneError, Keep, Observation, SourceKind, StatCache
from llmbuild.sources.select import (
    GGUF_NAME,
    MOST_DESCRIPTION,
    check_relative,
    is_description,
    is_weights,
    needed_files,
    output_name,
)
from llmbuild.sources.shape import ShapeError

KEPT_FROM = 4 << 20
"""The size in bytes from which on a file of weights is not copied where that can be avoided."""


class LocalKind(SourceKind):
    """A kind whose spec is {"path"}, and whose pin records what the files are."""

    remote: ClassVar[bool] = False
    fixed: ClassVar[bool] = True
    hint_keys: ClassVar[tuple[str, ...]] = ("path",)

    @abstractmethod
    def copy(
        self, path: Path, files: Mapping[str, Digest], out: Path, progress: Progress, keep: Keep | None = None
    ) -> None:
        """Copy the planned files, or `keep` the large ones; raises FetchError when one has changed since."""

    def key(self, spec: Mapping[str, str]) -> str:
        return f"{self.name}:{spec['path']}"

    def fetch(
        self, params: Mapping[str, Any], hints: Mapping[str, Any], out: Path, scratch: Path, progress: Progress
    ) -> None:
        self.copy(Path(hints["path"]), params["files"], out, progress)

    def take(
        self,
        params: Mapping[str, Any],
        hints: Mapping[str, Any],
        out: Path,
        scratch: Path,
        progress: Progress,
        keep: Keep,
    ) -> None:
        self.copy(Path(hints["path"]), params["files"], out, progress, keep)

    def remembered(self, spec: Mapping[str, str], root: Path, pin: Mapping[str, Any] | None) -> Observation | None:
        files = {name: known_digest(entry.get("sha256")) for name, entry in (pin or {}).get("files", {}).items()}
        if not files or not all(files.values()):
            return None
        # A directory with nothing but a GGUF file was observed as that file.
        kind = "gguf" if set(files) == {GGUF_NAME} else self.name
        return Observation({"source": {"kind": kind}, "files": files}, {"path": str((root / spec["path"]).absolute())})

    def description(self, params: Mapping[str, Any], hints: Mapping[str, Any]) -> Mapping[str, bytes] | None:
        """The files as they were observed; None where one has changed since."""
        found: dict[str, bytes] = {}
        for name, digest in params["files"].items():
            if is_description(name):
                data = _read(Path(hints["path"]) / name)
                if data is None or digest_bytes(data) != digest:
                    return None
                found[name] = data
        return found or None

    def written(self, spec: Mapping[str, str], file: str = "") -> str:
        return f"{spec['path'].rstrip('/') or '/'}/{file}" if file else spec["path"]

    def check(self, params: Mapping[str, Any], hints: Mapping[str, Any]) -> None:
        if not params["files"]:
            raise ShapeError("is empty", ("files",))

    def required_pin(
        self, spec: Mapping[str, str], params: Mapping[str, Any], pin: Mapping[str, Any] | None
    ) -> Mapping[str, Any]:
        return {"files": {name: {"sha256": digest} for name, digest in params["files"].items()}}


def observe_directory(
    path: Path, source_format: str | None, statcache: StatCache, pin: Mapping[str, Any] | None = None
) -> dict[str, Digest]:
    """Name and SHA-256 of each needed file.

    Raises GoneError when the directory is missing, or has none of the weights that it had when a pin was made; FetchError when
    it cannot be read, InputError when it is no checkpoint.
    """
    with _unreadable(path):
        if not path.is_dir():
            raise _missing(path, "a directory")
        names = [entry.name for entry in path.iterdir() if entry.is_file()]
    had = [name for name in (pin or {}).get("files", {}) if is_weights(name)]
    if had and not any(map(is_weights, names)):
        raise GoneError("the weights are gone", where=str(path / had[0]), why="there is no such file or directory")
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


def _read(path: Path) -> bytes | None:
    """The content of a small file; None where it is large, or cannot be read."""
    try:
        with path.open("rb") as file:
            data = file.read(MOST_DESCRIPTION + 1)
    except OSError:
        return None
    return data if len(data) <= MOST_DESCRIPTION else None


def observe_gguf(path: Path, statcache: StatCache) -> dict[str, Digest]:
    """The SHA-256 of a GGUF file under its output name.  Raises FetchError when it is missing."""
    with _unreadable(path):
        if not path.is_file():
            raise _missing(path, "a file")
    return {output_name(path.name): statcache.digest(path)}


def copy_files(
    files: Mapping[Path, tuple[str, Digest]], out: Path, progress: Progress, keep: Keep | None = None
) -> None:
    """Copy planned files under their names, or `keep` the large ones; raises FetchError when one has changed since."""
    from llmbuild.checkpoints.pieces import ChangedError

    with _unreadable(next(iter(files))):
        sizes = {path: path.stat().st_size for path in files}
    meter = Meter(progress, sum(sizes.values()))
    for path, (name, digest) in files.items():
        with _unreadable(path):
            if keep is not None and sizes[path] >= KEPT_FROM and is_weights(name):
                found = keep(path, name, meter.add)
            else:
                with path.open("rb") as source:
                    found, _ = copy_stream(source, out / name, meter.add)
        if found != digest:
            raise ChangedError(path, digest, f"its SHA-256 was {digest}, now it is {found}")


@contextlib.contextmanager
def _unreadable(path: Path) -> Iterator[None]:
    """Turn the system's errors about a source into one FetchError."""
    try:
        yield
    except OSError as error:
        raise FetchError(
            "cannot be read", where=str(error.filename or path), why=error.strerror or str(error)
        ) from error


def _missing(path: Path, kind: str) -> FetchError:
    beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    near = did_you_mean(path.name, [name for name in beside if name != path.name])
    if path.exists():
        return FetchError("the source does not exist", where=str(path), why=f"it is not {kind}", fix=near)
    return GoneError("the source does not exist", where=str(path), why="there is no such file or directory", fix=near)
