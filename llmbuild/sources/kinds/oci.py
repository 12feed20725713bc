"""`oci:registry/repository@sha256:…`: a checkpoint in a registry, in the format of the ModelPack specification.

spec: {"repository", "digest"}.  The manifest that the digest names has the digest of every file, so the bytes can come from
anywhere.
Format: https://github.com/modelpack/model-spec/blob/main/docs/spec.md; its layers of raw files are read, archives are not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

from llmbuild.canonical import Json, digest_bytes, known_digest
from llmbuild.checkpoints.names import CHAT_CONFIG
from llmbuild.errors import FetchError, InputError, UsageError
from llmbuild.sources.kind import Context, Source, SourceError
from llmbuild.sources.remote import Download, RemoteKind
from llmbuild.sources.select import check_relative, needed_files, output_name, transfer_order
from llmbuild.sources.shape import ShapeError

_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_RAW = re.compile(r"application/vnd\.cncf\.model\.[a-z.]+\.v1\.raw")


class Oci(RemoteKind):
    """The digest of the manifest is the identity; the repository only locates the bytes."""

    name: ClassVar[str] = "oci"
    schemes: ClassVar[tuple[str, ...]] = ("oci",)
    form: ClassVar[str] = "oci:registry/repository@sha256:…"
    fixed: ClassVar[bool] = True
    identity_keys: ClassVar[tuple[str, ...]] = ("digest",)
    hint_keys: ClassVar[tuple[str, ...]] = ("repository",)

    def parse(self, text: str, revision: str | None, sha256: str | None) -> Source:
        from llmbuild.sources.registry import Repository

        repository, _, digest = text.removeprefix("oci:").partition("@")
        found = _DIGEST.fullmatch(digest)
        if found is None:
            raise SourceError(
                "a model in a registry is named by its digest",
                fix=f"write {self.form}, as `llmbuild publish` prints it",
            )
        try:
            return Source(self.name, {"repository": str(Repository.parse(repository)), "digest": found[1]})
        except UsageError as error:
            raise SourceError(error.what, fix=error.fix) from error

    def key(self, spec: Mapping[str, str]) -> str:
        return f"oci:{spec['repository']}@sha256:{spec['digest']}"

    def identity(self, spec: Mapping[str, str], pin: Mapping[str, Any] | None) -> Mapping[str, Json]:
        return {"digest": spec["digest"]}

    def hints(self, spec: Mapping[str, str], context: Context) -> Mapping[str, Json]:
        return {"repository": spec["repository"]}

    def check(self, params: Mapping[str, Any], hints: Mapping[str, Any]) -> None:
        from llmbuild.sources.registry import Repository

        if known_digest(params["source"]["digest"]) is None:
            raise ShapeError("is not a digest", ("source", "digest"))
        try:
            Repository.parse(hints["repository"])
        except UsageError as error:
            raise ShapeError("is not a repository", ("hints", "repository"), error.why) from error

    def download(self, what: Download) -> None:
        from llmbuild.sources.copying import Meter
        from llmbuild.sources.http import Promise, download
        from llmbuild.sources.registry import Registry, Repository

        registry = Registry(Repository.parse(what.hints["repository"]))
        where = f"oci:{registry.repository}@sha256:{what.identity['digest']}"
        layers = _layers(registry, what.identity["digest"], where)

        def read(name: str) -> bytes:
            response = registry.persist(
                lambda: registry.ask("GET", registry.url("blobs", f"sha256:{layers[name].sha256}"), (200,))
            )
            data: bytes = response.content
            if not layers[name].holds(data):
                raise _damaged(where, f"{name} has another digest than its manifest says")
            return data

        if CHAT_CONFIG in layers:
            raise InputError(
                "is a model that llmbuild built, and no checkpoint",
                where=where,
                why=f"it has {CHAT_CONFIG}: its weights are packed already",
                fix='run it as it is, or publish the checkpoint that it was built from (content = "checkpoint")',
            )
        names = needed_files(layers, what.source_format, where, read)
        meter = Meter(what.progress, sum(layers[name].size or 0 for name in names))
        promises: dict[str, Promise] = {name: layers[name] for name in names}
        for name in sorted(names, key=transfer_order):
            url = registry.url("blobs", f"sha256:{promises[name].sha256}")
            download(
                url,
                what.out / output_name(name),
                promises[name],
                partial=what.partial,
                add=meter.add,
                credentials=registry.credentials(),
            )

    def named(self, identity: Mapping[str, Any]) -> str:
        return f"the model with the digest sha256:{identity['digest']}"

    def uri(self, identity: Mapping[str, Any], hints: Mapping[str, Any]) -> str | None:
        repository = hints.get("repository")
        if repository is None:
            return None
        name = str(repository).rpartition("/")[2]
        return f"pkg:oci/{name}@sha256%3A{identity['digest']}?repository_url={repository}"


def _layers(registry: Any, digest: str, where: str) -> dict[str, Any]:
    """What the manifest promises of each file, by its path.  Raises FetchError."""
    from llmbuild.sources.http import Promise
    from llmbuild.sources.registry import layer_path, split_layers

    found = registry.manifest(f"sha256:{digest}")
    if found is None:
        raise FetchError("the registry has no such model", where=where, fix="check the name and the digest")
    if (sha256 := digest_bytes(found)) != digest:
        raise _damaged(where, f"the manifest has the SHA-256 {sha256}")
    layers: dict[str, Any] = {}
    try:
        for layer in split_layers(found):
            path, size, blob = layer_path(layer), layer.get("size"), _DIGEST.fullmatch(str(layer.get("digest")))
            if path is None or not _RAW.fullmatch(str(layer.get("mediaType"))):
                raise ValueError(f"a layer is no raw file of a model but {layer.get('mediaType')!s:.100}")
            check_relative(path)
            if blob is None or not isinstance(size, int) or isinstance(size, bool) or size < 0:
                raise ValueError(f"the layer of {path} has no size or no SHA-256")
            layers[path] = Promise(size, known_digest(blob[1]))
    except ValueError as error:
        raise FetchError("is not a model that can be read", where=where, why=str(error)) from error
    return layers


def _damaged(where: str, why: str) -> FetchError:
    return FetchError("the registry sent something else than was asked for", where=where, why=why)


KIND = Oci()
