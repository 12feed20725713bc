"""The interface of a destination kind: all that llmbuild needs to know of one way of publishing results.

A publication is a list of files with their digests; a destination says what of it is there already, and takes the rest.  Nothing
that a destination has is sent to it again: what it has is asked for each time, and no record of this machine is believed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, TypeAlias

from llmbuild.canonical import Digest, digest_bytes
from llmbuild.errors import StoreError

Role: TypeAlias = Literal["weights", "config", "library", "card", "statement", "checksums"]
"""What a file is: a shard of weights, a configuration or a part of a tokenizer, a library, the model card, a provenance
statement, the list of the others' digests."""

Sent: TypeAlias = Callable[[int], None]
"""Takes the number of further bytes that were sent, from any thread; a negative one where some have to be sent again."""

CARD, CHECKSUMS = "README.md", "SHA256SUMS"
"""The names of the model card and of the list of digests."""


@dataclass(frozen=True, slots=True)
class File:
    """A file of a publication: its path there (with slashes), SHA-256 and size in bytes, and its content or where that is."""

    name: str
    digest: Digest
    size: int
    role: Role
    content: Path | bytes = field(repr=False)

    @staticmethod
    def of_bytes(name: str, role: Role, data: bytes) -> File:
        return File(name, digest_bytes(data), len(data), role, data)

    def part(self, start: int, most: int) -> bytes:
        """At most `most` bytes from an offset; the receiver verifies the whole.  Raises StoreError."""
        if isinstance(self.content, bytes):
            return self.content[start : start + most]
        try:
            with self.content.open("rb") as file:
                file.seek(start)
                return file.read(most)
        except OSError as error:
            why = error.strerror or str(error)
            raise StoreError("a result cannot be read", where=str(self.content), why=why) from error

    def whole(self) -> bytes:
        """The content.  Raises StoreError, also where it is no longer what was built."""
        data = self.part(0, self.size + 1)
        if digest_bytes(data) != self.digest:
            raise StoreError(
                "a result changed while it was published",
                where=str(self.content) if isinstance(self.content, Path) else self.name,
                fix="run `llmbuild build`, then publish again",
            )
        return data


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of the model: its name, scheme ("" for a checkpoint), model type, number of parameters, the type that it
    computes in, and its license; None for what is not known."""

    model: str
    scheme: str = ""
    family: str | None = None
    parameters: int | None = None
    precision: str | None = None
    license: str | None = None


@dataclass(frozen=True, slots=True)
class Publication:
    """The files of one model for one destination, sorted by name."""

    files: tuple[File, ...]
    facts: Facts

    @staticmethod
    def of(files: Sequence[File], facts: Facts) -> Publication:
        """A publication of these files and the list of their digests, as `sha256sum -c` reads it."""
        listed = sorted(files, key=lambda file: file.name)
        text = "".join(f"{file.digest}  {file.name}\n" for file in listed)
        sums = File.of_bytes(CHECKSUMS, "checksums", text.encode())
        return Publication(tuple(sorted((*listed, sums), key=lambda file: file.name)), facts)

    def named(self, names: Sequence[str]) -> list[File]:
        """The files with these names."""
        return [file for file in self.files if file.name in names]


@dataclass(frozen=True, slots=True)
class Difference:
    """What publishing would change at a destination, by the names of files.

    `size` is what has to be sent at most, in bytes; `reference` names what is there now in full, None where nothing is.
    """

    new: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    same: tuple[str, ...] = ()
    size: int = 0
    reference: str | None = None

    @staticmethod
    def of(
        publication: Publication,
        there: Mapping[str, bool],
        *,
        before: Iterable[str] = (),
        size: int | None = None,
        reference: str | None = None,
    ) -> Difference:
        """The difference from what is there: `there` says of each file there, by its name, whether it is the same; `before` names
        those of the last publication.  Without `size` every new and changed file has to be sent."""
        files = publication.files
        sent = [file for file in files if not there.get(file.name)]
        return Difference(
            new=tuple(file.name for file in sent if file.name not in there),
            changed=tuple(file.name for file in sent if file.name in there),
            removed=tuple(sorted(set(before) - {file.name for file in files})),
            same=tuple(file.name for file in files if there.get(file.name)),
            size=sum(file.size for file in sent) if size is None else size,
            reference=reference,
        )

    @property
    def empty(self) -> bool:
        return self.reference is not None and not (self.new or self.changed or self.removed)


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a user may decide of a destination; None for its own default."""

    private: bool | None = None
    revision: str | None = None

    def given(self) -> Mapping[str, object]:
        """Those that are set."""
        values = {"private": self.private, "revision": self.revision}
        return {name: value for name, value in values.items() if value is not None}


class Destination(Protocol):
    """One place to publish at."""

    @property
    def name(self) -> str:
        """How messages and records name it."""
        ...

    def compare(self, publication: Publication) -> Difference:
        """What publishing would change.  Sends nothing.  Raises FetchError or UsageError."""
        ...

    def require_login(self) -> None:
        """Raise UsageError where the credentials are missing without which nothing can be sent.  Uses no network."""
        ...

    def send(self, publication: Publication, difference: Difference, sent: Sent) -> str:
        """Publish what differs; returns the reference of the result, which never means anything else.

        Raises FetchError, UsageError or StoreError; what was sent until then is not sent again.
        """
        ...


class DestinationKind(Protocol):
    """A kind of destination; it is stateless, and only an open destination uses the network."""

    name: str
    """The prefix before the colon."""
    form: str
    """How a destination is written, for messages."""
    options: frozenset[str]
    """The fields of `Wishes` that the kind takes."""

    def check(self, place: str) -> None:
        """Raise UsageError where the text after the prefix names no place."""
        ...

    def open(self, place: str, wishes: Wishes, state: Path) -> Destination:
        """The destination.  `state` is a directory for notes on unfinished uploads; it may be missing."""
        ...
