"""Sources whose bytes come from elsewhere: their kinds share the lock file's promise and the cache."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from llmbuild.canonical import Digest, Json
from llmbuild.errors import FetchError
from llmbuild.sources.copying import Progress
from llmbuild.sources.kind import Context, Observation, SourceKind
from llmbuild.sources.pins import promise_broken, promised_files, promised_sizes


@dataclass(frozen=True, slots=True)
class Download:
    """What to download, and where to.

    `pin` has what the lock file promises: {"commit", "files"}.  `have` is a directory of blobs to look in first, `partial`
    keeps unfinished files between runs.
    """

    identity: Mapping[str, Any]
    hints: Mapping[str, Any]
    pin: Mapping[str, Any]
    have: Path | None
    partial: Path
    out: Path
    scratch: Path
    progress: Progress

    @property
    def source_format(self) -> str | None:
        """The requested form of weights."""
        form: str | None = self.identity.get("format")
        return form

    @property
    def sizes(self) -> Mapping[str, int]:
        """The sizes of the output files, where the lock records them."""
        return promised_sizes(self.pin)


class RemoteKind(SourceKind):
    """A kind that downloads."""

    remote: ClassVar[bool] = True

    @abstractmethod
    def identity(self, spec: Mapping[str, str], pin: Mapping[str, Any] | None) -> Mapping[str, Json]:
        """The part of a source that enters the fetch task's key, without its kind.  Raises FetchError."""

    @abstractmethod
    def download(self, what: Download) -> None:
        """Put the files of a source into `what.out`, which are then verified against the promises in `what.pin`.  Raises
        LlmbuildError."""

    @abstractmethod
    def named(self, identity: Mapping[str, Any]) -> str:
        """How messages name a source."""

    def pinned(
        self, spec: Mapping[str, str], pin: Mapping[str, Any] | None, context: Context
    ) -> Mapping[str, Any] | None:
        """The pin to use.  Raises FetchError."""
        return pin

    def hints(self, spec: Mapping[str, str], context: Context) -> Mapping[str, Json]:
        """The kind's own hints."""
        return {}

    def observe(self, spec: Mapping[str, str], context: Context) -> Observation:
        """The params and hints of the fetch task, by the pin where it applies."""
        pin = context.lock.get(self.lock_key(spec, context.source_format))
        if pin is not None and not self.applies(spec, pin):
            pin = None
        pin = self.pinned(spec, pin, context)
        form: dict[str, Json] = {} if context.source_format is None else {"format": context.source_format}
        identity: dict[str, Json] = {"kind": self.name, **self.identity(spec, pin), **form}
        hints: dict[str, Json] = {"offline": context.offline}
        if context.partial is not None:
            hints["partial"] = str(context.partial)
        if context.have is not None:
            hints["have"] = str(context.have)
        hints |= self.hints(spec, context)
        if pin is not None and pin.get("files"):
            hints["files"] = pin["files"]
        if pin is not None and "unread" in pin:
            hints["unread"] = pin["unread"]
        return Observation({"source": identity, "files": {}}, hints)

    def fetch(
        self, params: Mapping[str, Any], hints: Mapping[str, Any], out: Path, scratch: Path, progress: Progress
    ) -> None:
        """Take the files from the blobs that are here, else download them and verify them against the pin."""
        from llmbuild.sources import local_blobs

        identity = params["source"]
        pin = {"commit": identity.get("commit"), "files": hints.get("files") or {}}
        wanted = promised_files(pin) or self.single_file(identity)
        have = Path(hints["have"]) if "have" in hints else None
        if wanted and local_blobs.take_all(have, wanted, out, progress):
            return
        if hints.get("offline"):
            raise FetchError(
                "has to be downloaded",
                where=self.named(identity),
                why="it is not in the cache, and --offline forbids to use the network",
                fix="build once without --offline",
            )
        partial = Path(hints["partial"]) if "partial" in hints else scratch / "partial"
        self.download(Download(identity, hints, pin, have, partial, out, scratch, progress))
        self.check_arrived(out, pin, identity)

    def check_arrived(self, out: Path, pin: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
        """Raise FetchError when the files that arrived are not those that were there when the source was locked."""
        if not pin["files"]:
            return
        from llmbuild.canonical import digest_file

        arrived = {path.name: (digest_file(path), path.stat().st_size) for path in out.iterdir()}
        broken = promise_broken(pin, arrived)
        if broken is not None:
            for name in arrived:
                (out / name).unlink()
            raise broken_promise(self.named(identity), broken)


class AnnouncedKind(RemoteKind):
    """A kind whose origin reports the current state of a source, its files and their digests, before any file is fetched.

    Its `download` verifies each file against these promises.
    """

    @abstractmethod
    def pinned(
        self, spec: Mapping[str, str], pin: Mapping[str, Any] | None, context: Context
    ) -> Mapping[str, Any] | None:
        """The pin to use: the lock file's, else what the origin reports, which is recorded in the lock.  Raises FetchError."""

    @abstractmethod
    def complete_pin(self, what: Download, keep: Callable[[Path], tuple[Digest, int]]) -> Mapping[str, Json]:
        """`what.pin` with the SHA-256 and size of all files.

        Only files whose SHA-256 or size the origin does not report are downloaded; `keep` takes each and hashes it.
        """

    def check_arrived(self, out: Path, pin: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
        """Nothing is left to check: see `download`."""


def broken_promise(where: str, why: str) -> FetchError:
    """The error of a source that does not match the lock file."""
    return FetchError(
        "is not what was locked",
        where=where,
        why=why,
        fix="if it was rightly replaced, run `llmbuild lock --upgrade` and commit the lock file",
    )
