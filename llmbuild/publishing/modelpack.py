"""A publication as a ModelPack artifact: https://github.com/modelpack/model-spec/blob/main/docs/spec.md.  Pure.

Each file is a layer of its own, as it is: what a registry has of one model it has for every other, and a reader takes only what
it needs.  The manifest is a function of the files: no times, no names of machines.
"""

from __future__ import annotations

from collections.abc import Mapping

from llmbuild.canonical import Json, canonical_json, digest_bytes
from llmbuild.jsontext import parse_json
from llmbuild.publishing.kind import Facts, File, Publication, Role
from llmbuild.sources.registry import FILEPATH, INDEX_TYPE, MANIFEST_TYPE

ARTIFACT_TYPE = "application/vnd.cncf.model.manifest.v1+json"
CONFIG_TYPE = "application/vnd.cncf.model.config.v1+json"
LAYER_TYPES: Mapping[Role, str] = {
    "weights": "application/vnd.cncf.model.weight.v1.raw",
    "config": "application/vnd.cncf.model.weight.config.v1.raw",
    "library": "application/vnd.cncf.model.code.v1.raw",
    "card": "application/vnd.cncf.model.doc.v1.raw",
}
"""The media types of layers; a library is what the specification calls code."""
ATTACHED_TYPES: Mapping[Role, str] = {"statement": "application/vnd.in-toto+json", "checksums": "text/plain"}
"""The media types of the files that are attached to a model as artifacts of their own."""

EMPTY = b"{}"
_EMPTY_TYPE = "application/vnd.oci.empty.v1+json"
"""https://github.com/opencontainers/image-spec/blob/main/manifest.md#guidance-for-an-empty-descriptor"""
_TITLE = "org.opencontainers.image.title"
_SCALES = (("B", 1_000_000_000), ("M", 1_000_000), ("K", 1_000))


def descriptor(file: File, media_type: str) -> dict[str, Json]:
    """A file as a layer."""
    return {
        "mediaType": media_type,
        "digest": f"sha256:{file.digest}",
        "size": file.size,
        "annotations": {FILEPATH: file.name, _TITLE: file.name},
    }


def config(publication: Publication) -> bytes:
    """The configuration of the artifact."""
    facts = publication.facts
    about: dict[str, Json] = {"name": facts.model}
    if facts.family is not None:
        about["family"] = facts.family
    if facts.license is not None:
        about["licenses"] = [facts.license]
    technical: dict[str, Json] = {"architecture": "transformer", "format": "mlc" if facts.scheme else "checkpoint"}
    for key, value in (
        ("paramSize", _parameters(facts)),
        ("precision", facts.precision),
        ("quantization", facts.scheme or None),
    ):
        if value is not None:
            technical[key] = value
    technical["capabilities"] = {"inputTypes": ["text"], "outputTypes": ["text"]}
    layers: Json = [f"sha256:{file.digest}" for file in publication.files if file.role in LAYER_TYPES]
    return canonical_json({"descriptor": about, "config": technical, "modelfs": {"type": "layers", "diffIds": layers}})


def manifest(publication: Publication) -> bytes:
    """The manifest of the model."""
    layers = [descriptor(file, LAYER_TYPES[file.role]) for file in publication.files if file.role in LAYER_TYPES]
    return canonical_json(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "artifactType": ARTIFACT_TYPE,
            "config": _described(config(publication), CONFIG_TYPE),
            "layers": layers,
        }
    )


def attachment(file: File, subject: bytes) -> bytes:
    """The manifest of a file that is attached to a model, whose manifest is `subject`."""
    media_type = ATTACHED_TYPES[file.role]
    return canonical_json(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "artifactType": media_type,
            "config": _described(EMPTY, _EMPTY_TYPE),
            "layers": [descriptor(file, media_type)],
            "subject": _described(subject, MANIFEST_TYPE),
        }
    )


def referrers(attachments: Mapping[bytes, str], present: bytes | None) -> bytes:
    """The index that lists attachments (manifests, with their types) where a registry does not list them itself: the referrers
    tag schema of https://github.com/opencontainers/distribution-spec.  What the `present` index lists stays in it."""
    listed = {str(one["digest"]): one for one in _listed(present)}
    for data, kind in attachments.items():
        one = {**_described(data, MANIFEST_TYPE), "artifactType": kind}
        listed[str(one["digest"])] = one
    return canonical_json({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": list(listed.values())})


def _listed(index: bytes | None) -> list[dict[str, Json]]:
    """What an index lists; nothing where it is none."""
    try:
        value = None if index is None else parse_json(index)
    except ValueError:
        return []
    listed = value.get("manifests") if isinstance(value, dict) else None
    return [one for one in listed if isinstance(one, dict) and "digest" in one] if isinstance(listed, list) else []


def _described(data: bytes, media_type: str) -> dict[str, Json]:
    return {"mediaType": media_type, "digest": f"sha256:{digest_bytes(data)}", "size": len(data)}


def _parameters(facts: Facts) -> str | None:
    """`135M`, `1.2B`."""
    if facts.parameters is None:
        return None
    for letter, scale in _SCALES:
        if facts.parameters >= scale:
            return f"{facts.parameters / scale:.1f}".removesuffix(".0") + letter
    return None
