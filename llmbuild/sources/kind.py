"""The interface of a source kind: all that llmbuild needs for one way of naming where a checkpoint lies.

Two mappings describe a source.  Its spec is what the manifest declares; its identity is the part that enters the key of the
fetch task, so that equal identities mean equal bytes.  A pin (see pins.py) is what the lock file records.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

from llmbuild.canonical import Digest, Json
from llmbuild.errors import FetchError
from llmbuild.sources.copying import Progress


@dataclass(frozen=True, slots=True)
class Source:
    """Where bytes come from, as a manifest declares it: the name of a kind, and that kind's spec."""

    kind: str
    spec: Mapping[str, str]


class SourceError(ValueError):
    """A source string is invalid.  `key` names the one at fault: source, revision or sha256."""

    def __init__(self, what: str, *, key: str = "source", fix: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.key = key
        self.fix = fix


class Keep(Protocol):
    """Takes a large file of this machine into the output under a name, without copying it where that is possible.

    `add` receives the number of further bytes read.  Returns the file's SHA-256; raises OSError when it cannot be read.
    """

    def __call__(self, path: Path, name: str, add: Callable[[int], None]) -> Digest: ...


class GoneError(FetchError):
    """A source on this machine is not there (any more)."""


class StatCache(Protocol):
    """Returns the SHA-256 of a file, the cached one where the file is unchanged."""

    def digest(self, path: Path) -> Digest: ...


class Pins(Protocol):
    """The lock file's pins by source."""

    def get(self, key: str) -> Mapping[str, Any] | None: ...

    def put(self, key: str, pin: Mapping[str, Json]) -> None: ...


Refused = Callable[[Mapping[str, bytes]], bool]
"""Whether files that `is_description` names, by their names, describe a checkpoint that is refused whatever else it has."""


class Observation(NamedTuple):
    """One observed source: `params` enter the fetch task's key, `hints` only locate the bytes."""

    params: Mapping[str, Json]
    hints: Mapping[str, Json]


@dataclass(frozen=True, slots=True)
class Context:
    """The context in which a source is observed.

    `root` is where relative paths start, `source_format` the requested form of weights, `partial` where unfinished downloads
    are kept between runs, `have` a directory of blobs in which promised files are looked for before they are downloaded,
    `manifest` the file that has the query of a URL.  `refused` is asked before a kind reads more than a description needs; where
    it says yes, only what identifies the bytes has to be found.
    """

    root: Path
    statcache: StatCache
    lock: Pins
    source_format: str | None = None
    offline: bool = False
    partial: Path | None = None
    have: Path | None = None
    manifest: Path | None = None
    refused: Refused | None = None


class SourceKind(ABC):
    """A kind of source; it is stateless.  Only `observe`, `size` and `fetch` access a disk or the network."""

    name: ClassVar[str]
    schemes: ClassVar[tuple[str, ...]] = ()
    """The prefixes before the colon of a source of this kind; "" is for texts without one."""
    form: ClassVar[str]
    """How a source of this kind is written, for messages."""
    adapter: ClassVar[str] = ""
    """How a LoRA adapter of this kind is written; "" where adapters cannot come from it."""
    models: ClassVar[bool] = True
    """Whether models can come from it; otherwise it is a kind of what packages are made of."""
    options: ClassVar[frozenset[str]] = frozenset()
    """The keys beside `source` that the kind takes: "revision", "sha256"."""
    remote: ClassVar[bool]
    """Whether the bytes come from elsewhere, so that a pin is a promise.  A local file is what it is; its pin is a record."""
    fixed: ClassVar[bool] = False
    """Whether the bytes behind an identity cannot be replaced."""
    identity_keys: ClassVar[tuple[str, ...]] = ()
    """The texts that an identity of this kind has."""
    hint_keys: ClassVar[tuple[str, ...]] = ()
    """The texts that the hints of this kind have."""
    pin_keys: ClassVar[tuple[str, ...]] = ()
    """The fields that a pin of this kind requires."""

    @abstractmethod
    def parse(self, text: str, revision: str | None, sha256: str | None) -> Source:
        """Parse a string of a manifest into its source.  Pure.  Raises SourceError."""

    @abstractmethod
    def key(self, spec: Mapping[str, str]) -> str:
        """The source's name in the lock file, which begins with the kind's name and a colon (or is a URL)."""

    def lock_key(self, spec: Mapping[str, str], source_format: str | None) -> str:
        """The key of the lock file for one form of the source's weights."""
        return self.key(spec) + (f"#{source_format}" if source_format else "")

    @abstractmethod
    def observe(self, spec: Mapping[str, str], context: Context) -> Observation:
        """Resolve what planning needs: the params {"source", "files"} and the hints.  Raises FetchError or InputError."""

    def remembered(self, spec: Mapping[str, str], root: Path, pin: Mapping[str, Any] | None) -> Observation | None:
        """What `observe` returned when a pin was made, for a source that is gone; None where the pin does not record it."""
        return None

    @abstractmethod
    def fetch(
        self, params: Mapping[str, Any], hints: Mapping[str, Any], out: Path, scratch: Path, progress: Progress
    ) -> None:
        """Put the files of an observed source into `out`, flat.  Raises LlmbuildError."""

    def take(
        self,
        params: Mapping[str, Any],
        hints: Mapping[str, Any],
        out: Path,
        scratch: Path,
        progress: Progress,
        keep: Keep,
    ) -> None:
        """As `fetch`, for an output into which large files of this machine need not be copied."""
        self.fetch(params, hints, out, scratch, progress)

    def size(self, params: Mapping[str, Any], hints: Mapping[str, Any]) -> int | None:
        """The size in bytes of an observed source, or of its archive; None where only a fetch determines it.  Raises OSError or
        FetchError."""
        return None

    def archived(self, identity: Mapping[str, Any]) -> bool:
        """Whether the download is an archive of the output files, with a size of its own."""
        return False

    def check(self, params: Mapping[str, Any], hints: Mapping[str, Any]) -> None:
        """Raise ShapeError where the values of a record, whose keys and types are right, are invalid for this kind."""

    def applies(self, spec: Mapping[str, str], pin: Mapping[str, Any]) -> bool:
        """Whether a pin matches what the manifest means now, which may promise another SHA-256 than before."""
        promised = spec.get("sha256")
        if promised is None:
            return True
        digests = [entry.get("sha256") for entry in pin.get("files", {}).values()]
        return len(digests) != 1 or digests[0] == promised

    def required_pin(
        self, spec: Mapping[str, str], params: Mapping[str, Any], pin: Mapping[str, Any] | None
    ) -> Mapping[str, Any]:
        """The entry that a lock requires for an observed source: what is known without a fetch takes precedence over the
        present pin."""
        if pin is not None and not self.applies(spec, pin):
            name = next(iter(pin["files"]))
            return {"files": {name: {"sha256": spec["sha256"]}}}
        return pin or {}

    def fetched_pin(
        self,
        spec: Mapping[str, str],
        params: Mapping[str, Any],
        pin: Mapping[str, Any] | None,
        fetched: Mapping[str, tuple[Digest, int]],
    ) -> Mapping[str, Json]:
        """The pin of a source whose files (name in the output to SHA-256 and size) are here."""
        return {"files": pinned_files(fetched)}

    def single_file(self, identity: Mapping[str, Any]) -> Mapping[str, Digest] | None:
        """The one file that an identity promises by itself, by its name in the output."""
        return None

    def uri(self, identity: Mapping[str, Any], hints: Mapping[str, Any]) -> str | None:
        """The universal name of a source: a package URL (https://github.com/package-url/purl-spec) or the URL itself.

        A local file has no such name; only its digest identifies it.
        """
        return None

    def description(self, params: Mapping[str, Any], hints: Mapping[str, Any]) -> Mapping[str, bytes] | None:
        """The files of an observed source that `descriptions` selects, got without its weights; None where only a fetch gets
        them, or where they cannot be had just now: what is wrong then is for the fetch to report.  Raises InputError
        where the files of a source on this machine are not those of a checkpoint."""
        return None

    def written(self, spec: Mapping[str, str], file: str = "") -> str:
        """The source, or a file of its output, as a person would name it by what the manifest says."""
        return f"{self.key(spec)}: {file}" if file else self.key(spec)

    def configuration(self, spec: Mapping[str, str], root: Path) -> Path | None:
        """The config.json of the checkpoint where it can be read without fetching anything; it may be missing."""
        return None


def pinned_files(fetched: Mapping[str, tuple[Digest, int]]) -> dict[str, Json]:
    """Files that are here, as a pin has them."""
    return {name: {"sha256": digest, "size": size} for name, (digest, size) in fetched.items()}
