"""`oci:registry/repository:tag`: a model in an OCI registry, as a ModelPack artifact.

A blob that the repository has is not sent.  One that has more than a part's bytes is sent in parts, and the place where it
stopped is noted in the project, so that a publication that was killed goes on there.  Statements and the list of digests are
attached to the model (they name it as their subject).  The tag is set last: whoever asks for it gets the whole or what was there
before.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import urllib.parse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmbuild.canonical import Digest, digest_bytes
from llmbuild.errors import FetchError, StoreError, UsageError
from llmbuild.jsontext import parse_json
from llmbuild.publishing import modelpack
from llmbuild.publishing.kind import Destination, Difference, File, Publication, Sent, Wishes
from llmbuild.sources.registry import INDEX_TYPE, MANIFEST_TYPE, Registry, Repository, layer_path, split_layers
from llmbuild.sources.request import TransientError

PART = 64 << 20
"""Bytes of a part; a blob that is not larger is sent whole."""

_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_RANGE = re.compile(r"(?:bytes=)?0-(\d{1,18})")
_GONE = (400, 404, 405, 416)
"""How registries answer when asked about an upload that they do not know any more."""


@dataclass(frozen=True, slots=True)
class Oci:
    """The kind."""

    name: str = "oci"
    form: str = "oci:registry/repository:tag"
    options: frozenset[str] = frozenset()

    def check(self, place: str) -> None:
        _split(place)

    def open(self, place: str, wishes: Wishes, state: Path) -> Destination:
        repository, tag = _split(place)
        return _Artifact(Registry(repository), tag, state)


KIND = Oci()


def _split(place: str) -> tuple[Repository, str]:
    name, colon, tag = place.rpartition(":")
    if not colon or "/" in tag or not _TAG.fullmatch(tag):
        raise UsageError(
            f"'{place}' has no tag",
            why="a tag has letters, digits, '_', '.' and '-', 128 at most, and begins with none of the last two",
            fix="write oci:registry/repository:tag",
        )
    return Repository.parse(name), tag


@dataclass(frozen=True, slots=True)
class _Artifact:
    registry: Registry
    tag: str
    state: Path

    @property
    def name(self) -> str:
        return f"oci:{self.registry.repository}:{self.tag}"

    def compare(self, publication: Publication) -> Difference:
        wanted = modelpack.manifest(publication)
        found = self.registry.manifest(self.tag)
        reference = None if found is None else self._reference(found)
        if found == wanted and self._attached(publication, wanted):
            return Difference(same=tuple(file.name for file in publication.files), reference=reference)
        before = {} if found is None else _paths(found)
        there = {
            file.name: before[file.name] == file.digest
            for file in publication.files
            if file.role in modelpack.LAYER_TYPES and file.name in before
        }
        missing = {file.digest: file.size for file in publication.files if not self.registry.has(file.digest)}
        return Difference.of(publication, there, before=before, size=sum(missing.values()), reference=reference)

    def require_login(self) -> None:
        """Some registries take what anybody sends."""

    def send(self, publication: Publication, difference: Difference, sent: Sent) -> str:
        wanted = modelpack.manifest(publication)
        reference = self._reference(wanted)
        if difference.empty:
            return reference
        notes = _Notes(self.state / "uploads.json", str(self.registry.repository))
        for file in publication.files:
            self._put_blob(file, notes, sent)
        for name, data in (("config", modelpack.config(publication)), ("empty", modelpack.EMPTY)):
            self._put_blob(File.of_bytes(name, "config", data), notes, lambda _size: None)
        attachments = _attachments(publication, wanted)
        for data in attachments:
            place = f"sha256:{digest_bytes(data)}"
            if self.registry.manifest(place) is None:
                self._put_manifest(place, data, MANIFEST_TYPE)
        if attachments and not self._lists_referrers(wanted):
            present = self.registry.manifest(_referrers_tag(wanted))
            index = modelpack.referrers(attachments, present)
            if present != index:
                self._put_manifest(_referrers_tag(wanted), index, INDEX_TYPE)
        self._put_manifest(self.tag, wanted, MANIFEST_TYPE)
        return reference

    def _reference(self, manifest: bytes) -> str:
        return f"oci:{self.registry.repository}@sha256:{digest_bytes(manifest)}"

    def _attached(self, publication: Publication, wanted: bytes) -> bool:
        """Whether the registry has all that is attached to a model."""
        return all(
            self.registry.manifest(f"sha256:{digest_bytes(data)}") is not None
            for data in _attachments(publication, wanted)
        )

    def _lists_referrers(self, subject: bytes) -> bool:
        """Whether the registry lists by itself what names a subject; those of before OCI 1.1 do not."""
        url = self.registry.url("referrers", f"sha256:{digest_bytes(subject)}")
        return bool(self.registry.persist(lambda: self.registry.ask("GET", url, (200, 404))).status_code == 200)

    def _put_manifest(self, reference: str, data: bytes, media_type: str) -> None:
        registry = self.registry
        url = registry.url("manifests", reference)
        registry.persist(lambda: registry.ask("PUT", url, (200, 201), data=data, headers={"Content-Type": media_type}))

    def _put_blob(self, file: File, notes: _Notes, sent: Sent) -> None:
        def attempt() -> None:
            counted = 0

            def count(size: int) -> None:
                nonlocal counted
                counted += size
                sent(size)

            try:
                self._upload(file, notes, count)
            except TransientError:
                sent(-counted)
                raise

        if not self.registry.has(file.digest):
            self.registry.persist(attempt)

    def _upload(self, file: File, notes: _Notes, sent: Sent) -> None:
        """Send a blob from where it stopped.  Raises TransientError and FetchError."""
        where, start = self._resumed(file, notes)
        if where is None:
            response = self.registry.ask("POST", self.registry.url("blobs", "uploads", ""), (202,))
            where, start = self._location(response), 0
        sent(start)
        kind = {"Content-Type": "application/octet-stream"}
        while file.size > PART and start < file.size:
            notes.put(file.digest, where)
            data = file.part(start, PART)
            if not data:
                raise StoreError("a result changed while it was published", where=file.name)
            end = start + len(data)
            span = {"Content-Range": f"{start}-{end - 1}"}
            response = self.registry.ask("PATCH", where, (202,), data=data, headers={**kind, **span}, sent=sent)
            where, start = self._location(response), end
            notes.put(file.digest, where)
        last = file.whole() if file.size <= PART else b""
        parts = urllib.parse.urlsplit(where)
        query = "&".join((*filter(None, (parts.query,)), f"digest=sha256:{file.digest}"))
        url = urllib.parse.urlunsplit(parts._replace(query=query))
        self.registry.ask("PUT", url, (201,), data=last, headers=kind, sent=sent)
        notes.drop(file.digest)

    def _resumed(self, file: File, notes: _Notes) -> tuple[str | None, int]:
        """Where an upload that was interrupted goes on, and from which byte; None where it starts anew."""
        where = notes.get(file.digest)
        if where is None or file.size <= PART:
            return None, 0
        response = self.registry.ask("GET", where, (204, *_GONE))
        found = _RANGE.fullmatch(response.headers.get("Range", ""))
        if response.status_code != 204 or found is None or int(found[1]) >= file.size:
            notes.drop(file.digest)
            return None, 0
        # "0-0" is how an upload without a byte is shown; a part has more than one.
        return self._location(response), int(found[1]) + 1 if int(found[1]) else 0

    def _location(self, response: Any) -> str:
        location = response.headers.get("Location")
        if not location:
            raise FetchError("the registry names no place for an upload", where=self.name)
        return urllib.parse.urljoin(f"{self.registry.repository.origin}/", str(location))


class _Notes:
    """Where uploads of large blobs go on, in a file of the project that only its owner can read: a place may hold a signature."""

    def __init__(self, path: Path, repository: str) -> None:
        self._path, self._repository = path, repository

    def get(self, digest: Digest) -> str | None:
        place = self._read().get(f"{self._repository}@{digest}")
        return place if isinstance(place, str) else None

    def put(self, digest: Digest, place: str) -> None:
        self._write({**self._read(), f"{self._repository}@{digest}": place})

    def drop(self, digest: Digest) -> None:
        notes = self._read()
        if notes.pop(f"{self._repository}@{digest}", None) is not None:
            self._write(notes)

    def _read(self) -> dict[str, Any]:
        try:
            value = parse_json(self._path.read_bytes())
        except (OSError, ValueError):
            return {}
        return value if isinstance(value, dict) else {}

    def _write(self, notes: dict[str, Any]) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            if not notes:
                self._path.unlink(missing_ok=True)
                return
            temporary = self._path.with_suffix(".new")
            with open(temporary, "w", encoding="utf-8", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
                json.dump(notes, file)
            temporary.replace(self._path)
        except OSError as error:
            why = error.strerror or str(error)
            raise StoreError("the place of an upload cannot be noted", where=str(self._path), why=why) from error


def _attachments(publication: Publication, wanted: bytes) -> dict[bytes, str]:
    """The manifests of what is attached to a model, with their types."""
    return {
        modelpack.attachment(file, wanted): modelpack.ATTACHED_TYPES[file.role]
        for file in publication.files
        if file.role in modelpack.ATTACHED_TYPES
    }


def _referrers_tag(wanted: bytes) -> str:
    return f"sha256-{digest_bytes(wanted)}"


def _paths(data: bytes) -> dict[str, str]:
    """The digests of the files of a manifest; none where it is that of something else."""
    found: dict[str, str] = {}
    with contextlib.suppress(ValueError):
        for layer in split_layers(data):
            path = layer_path(layer)
            if path is not None:
                found[path] = str(layer.get("digest")).removeprefix("sha256:")
    return found
