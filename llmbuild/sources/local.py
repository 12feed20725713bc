"""Sources on this machine: a directory with a checkpoint, or one GGUF file.

Planning digests the needed files (through a cache keyed by their stat), so the key depends on contents and on no path.
Fetching copies them and checks that they are still what was planned; large files of weights are copied only where the caller
wants that.
"""

from __future__ import annotations

import contextlib
import os
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from llmbuild.canonical import Digest, digest_bytes, known_digest
from llmbuild.checkpoints.pointer import POINTER_BYTES, refuse_pointer
from llmbuild.checkpoints.weight_files import gguf_parts
from llmbuild.errors import FetchError, InputError, did_you_mean
from llmbuild.jsontext import MOST_BYTES
from llmbuild.pathtext import PathTextError, expand
from llmbuild.sources.advice import fitting
from llmbuild.sources.copying import Meter, Progress, copy_stream
from llmbuild.sources.kind import GoneError, Keep, Observation, SourceKind, StatCache
from llmbuild.sources.select import (
    CONFIG_NAMES,
    MOST_DESCRIPTION,
    check_relative,
    descriptions,
    gguf_of,
    is_weights,
    needed_files,
    output_name,
    unread_weights,
)
from llmbuild.sources.shape import ShapeError

KEPT_FROM = 4 << 20
"""The size in bytes from which on a file of weights is not copied where that can be avoided."""


MISSING = "the source does not exist"


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
        kind = "gguf" if all(name.endswith(".gguf") for name in files) else self.name
        return Observation({"source": {"kind": kind}, "files": files}, {"path": str(place(root, spec))})

    def description(self, params: Mapping[str, Any], hints: Mapping[str, Any]) -> Mapping[str, bytes] | None:
        """The files as they were observed; None where one has changed since.  Raises InputError where any file of the source is
        a git-lfs pointer."""
        found: dict[str, bytes] = {}
        wanted = descriptions(params["files"])
        refuse_pointers(Path(hints["path"]), params["files"])
        for name, digest in params["files"].items():
            if name in wanted:
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


def place(root: Path, spec: Mapping[str, str]) -> Path:
    """Where a local source is.  Raises FetchError where its path has a variable that is not set."""
    try:
        return (root / expand(spec["path"])).absolute()
    except PathTextError as error:
        raise FetchError(str(error), where=spec["path"], fix=error.fix) from None


def observe_directory(
    path: Path, source_format: str | None, statcache: StatCache, pin: Mapping[str, Any] | None = None
) -> tuple[dict[str, Digest], str | None]:
    """Name and SHA-256 of each needed file, and a file of weights of another format that is not read.

    Raises GoneError when the directory is missing, or has none of the weights that it had when a pin was made; FetchError when
    it cannot be read, InputError when it is no checkpoint.
    """
    with _unreadable(path):
        if not path.is_dir():
            raise _missing(path, "a directory")
        entries = list(path.iterdir())
        names = [entry.name for entry in entries if entry.is_file()]
        links = [] if len(names) == len(entries) else [entry.name for entry in entries if _leads_nowhere(entry)]
    had = [name for name in (pin or {}).get("files", {}) if is_weights(name)]
    if had and not any(map(is_weights, names)):
        lost = path / had[0]
        raise GoneError("the weights are gone", where=str(lost), why=_nothing(lost))
    if not any(name in CONFIG_NAMES for name in (*names, *links)):
        _refuse_cache(path, {entry.name for entry in entries})
    try:
        needed = needed_files([*names, *links], source_format, str(path), lambda name: _content(path / name))
    except InputError as error:
        error.fix = fitting(error.fix, remote=False)
        raise
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
        if name in links:
            raise _broken_link(path / name)
    return {name: statcache.digest(path / name) for name in needed}, unread_weights(names, needed, source_format)


def _read(path: Path) -> bytes | None:
    """The content of a small file; None where it is large, or cannot be read."""
    try:
        with path.open("rb") as file:
            data = file.read(MOST_DESCRIPTION + 1)
    except OSError:
        return None
    return data if len(data) <= MOST_DESCRIPTION else None


def refuse_pointers(directory: Path, names: Iterable[str]) -> None:
    """Raise InputError where one of these files is a git-lfs pointer, which is less than any other file of a checkpoint."""
    for name in names:
        path = directory / name
        try:
            # Of a file that is larger nothing is read.
            data = path.read_bytes() if path.stat().st_size < POINTER_BYTES else b""
        except OSError:
            # What cannot be read is for the fetch to report.
            continue
        refuse_pointer(data, name)


def observe_gguf(path: Path, statcache: StatCache) -> dict[str, Digest]:
    """The SHA-256 of a GGUF file under its output name, and of all its parts.  Raises FetchError when it is missing."""
    with _unreadable(path):
        if not path.is_file():
            raise _missing(path, "a file")
        beside = {name for name in gguf_parts(path.name) if (path.parent / name).is_file()}
    return {output_name(name): statcache.digest(path.parent / name) for name in gguf_of(path.name, beside, str(path))}


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
    first = path
    while not first.parent.is_dir():
        # The first part that is missing may be the one that is misspelt.
        first = first.parent
    near = did_you_mean(first.name, [entry.name for entry in first.parent.iterdir() if entry.name != first.name])
    if path.exists():
        return FetchError(MISSING, where=str(path), why=f"it is not {kind}", fix=near)
    return GoneError(MISSING, where=str(path), why=_nothing(path), fix=near)


def _leads_nowhere(path: Path) -> bool:
    return path.is_symlink() and not path.exists()


def _nothing(path: Path) -> str:
    """Why there is no file or directory at a path."""
    if path.is_symlink():
        return f"it is a link to '{path.readlink()}', and nothing is there"
    return "there is no such file or directory"


def _broken_link(path: Path) -> InputError:
    return InputError(
        "a file of the checkpoint is missing",
        where=str(path),
        why=_nothing(path),
        fix="download the checkpoint again, or copy the files that the links lead to",
    )


def _content(path: Path) -> bytes:
    """An index of weights."""
    if _leads_nowhere(path):
        raise _broken_link(path)
    with _unreadable(path), path.open("rb") as file:
        return file.read(MOST_BYTES + 1)


def _refuse_cache(path: Path, names: set[str]) -> None:
    """Raise InputError for the directory of a model, or of all models, in the cache of a hub's client."""
    inside = path / "snapshots"
    if "snapshots" in names and ("refs" in names or "blobs" in names):
        found = sorted(entry.name for entry in inside.iterdir() if entry.is_dir())
        commit = found[0] if len(found) == 1 else "COMMIT"
        raise InputError(
            "is a model's directory in the cache of a hub, and not a checkpoint",
            where=str(path),
            why=f"its snapshots are the checkpoints ({len(found)} here)",
            fix=f"name the snapshot: {inside / commit}",
        )
    models = sorted(name for name in names if name.startswith("models--"))
    if models:
        raise InputError(
            "is the cache of a hub, and not a checkpoint",
            where=str(path),
            why=f"it has {models[0]}" + (f" and {len(models) - 1} other models" if len(models) > 1 else ""),
            fix=f"name one snapshot, such as {path / models[0]}/snapshots/COMMIT, or the model as hf:org/name",
        )
