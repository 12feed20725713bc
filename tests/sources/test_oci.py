"""Checkpoints in a registry: the digest decides, every file is verified, and what is no checkpoint is refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from llmbuild.errors import FetchError, InputError, LlmbuildError, ToolchainError, UsageError
from llmbuild.manifest.source import parse_source
from llmbuild.sources import registry as registries
from llmbuild.sources.kind import SourceError
from llmbuild.sources.kinds import source_kind
from llmbuild.sources.registry import Registry, Repository, split_layers
from llmbuild.sources.shape import ShapeError
from tests.helpers.loopback import FileHandler, serving

DIGEST = "0" * 64
Files = dict[str, bytes]


class _Handler(FileHandler):
    """A registry that only reads: manifests and blobs by digest, and what tests put in their places."""

    def __init__(self, blobs: dict[str, bytes], *rest: Any) -> None:
        self.blobs = blobs
        super().__init__({}, *rest)

    def do_GET(self) -> None:
        name = self.path.rpartition("/")[2].removeprefix("sha256:")
        if self.path == "/v2/" or name in self.blobs:
            self.answer(200, self.blobs.get(name, b"{}"), "application/octet-stream")
        else:
            self.answer(404, b"{}", "application/json")


@pytest.fixture
def blobs() -> dict[str, bytes]:
    return {}


@pytest.fixture
def host(blobs: dict[str, bytes]) -> Iterator[str]:
    with serving(lambda *rest: _Handler(blobs, *rest)) as url:
        yield url.removeprefix("http://")


CHECKPOINT: Files = {"config.json": b'{"model_type": "llama"}', "model.safetensors": b"weights", "notes.txt": b"no"}


def put(
    blobs: dict[str, bytes], files: Files, change: Callable[[dict[str, Any]], None] = lambda _manifest: None
) -> str:
    """Put an artifact; returns the digest of its manifest."""
    layers = []
    for name, data in files.items():
        digest = hashlib.sha256(data).hexdigest()
        blobs[digest] = data
        layers.append(
            {
                "mediaType": "application/vnd.cncf.model.weight.v1.raw",
                "digest": f"sha256:{digest}",
                "size": len(data),
                "annotations": {"org.cncf.model.filepath": name},
            }
        )
    manifest = {"schemaVersion": 2, "layers": layers}
    change(manifest)
    data = json.dumps(manifest).encode()
    digest = hashlib.sha256(data).hexdigest()
    blobs[digest] = data
    return digest


def fetch(host: str, digest: str, tmp_path: Path, **hints: Any) -> Mapping[str, bytes]:
    out, scratch = tmp_path / "out", tmp_path / "scratch"
    out.mkdir()
    scratch.mkdir()
    source_kind("oci").fetch(
        {"source": {"kind": "oci", "digest": digest}, "files": {}},
        {"repository": f"{host}/org/x", **hints},
        out,
        scratch,
        lambda _done, _total, _unit="": None,
    )
    return {path.name: path.read_bytes() for path in sorted(out.iterdir())}


def failed(host: str, digest: str, tmp_path: Path, expected: type[LlmbuildError] = FetchError) -> str:
    with pytest.raises(expected) as found:
        fetch(host, digest, tmp_path)
    return str(found.value)


def test_what_a_checkpoint_needs_is_fetched(blobs: dict[str, bytes], host: str, tmp_path: Path) -> None:
    digest = put(blobs, CHECKPOINT)
    assert fetch(host, digest, tmp_path) == {name: CHECKPOINT[name] for name in ("config.json", "model.safetensors")}


def test_a_gguf_file(blobs: dict[str, bytes], host: str, tmp_path: Path) -> None:
    assert fetch(host, put(blobs, {"Some-Q4.gguf": b"GGUF"}), tmp_path) == {"model.gguf": b"GGUF"}


def test_an_index_names_the_files(blobs: dict[str, bytes], host: str, tmp_path: Path) -> None:
    index = json.dumps({"weight_map": {"a": "one.safetensors"}}).encode()
    files = {
        "config.json": b"{}",
        "model.safetensors.index.json": index,
        "one.safetensors": b"1",
        "two.safetensors": b"2",
    }
    digest = put(blobs, files)
    assert "two.safetensors" not in fetch(host, digest, tmp_path)
    blobs[hashlib.sha256(index).hexdigest()] = index + b" "
    (tmp_path / "other").mkdir()
    text = failed(host, digest, tmp_path / "other")
    assert "model.safetensors.index.json has another digest than its manifest says" in text


def test_a_registry_that_lies(blobs: dict[str, bytes], host: str, tmp_path: Path) -> None:
    digest = put(blobs, CHECKPOINT)
    blobs[hashlib.sha256(b"weights").hexdigest()] = b"WEIGHTS"
    assert "what was downloaded is not what was promised" in failed(host, digest, tmp_path)


def test_another_manifest(blobs: dict[str, bytes], host: str, tmp_path: Path) -> None:
    blobs[DIGEST] = b"{}"
    assert "the registry sent something else than was asked for" in failed(host, DIGEST, tmp_path)


def test_a_model_that_is_not_there(host: str, tmp_path: Path) -> None:
    assert "the registry has no such model" in failed(host, DIGEST, tmp_path)


def test_a_model_that_is_built(blobs: dict[str, bytes], host: str, tmp_path: Path) -> None:
    digest = put(blobs, {"mlc-chat-config.json": b"{}", "params_shard_0.bin": b""})
    assert "is a model that llmbuild built, and no checkpoint" in failed(host, digest, tmp_path, InputError)


def set_layer(key: str, value: object) -> Callable[[dict[str, Any]], None]:
    return lambda manifest: manifest["layers"][0].update({key: value})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda manifest: manifest.pop("layers"), "it is no list of layers"),
        (lambda manifest: manifest.update(layers=[5]), "it is no list of layers"),
        (set_layer("mediaType", "application/vnd.cncf.model.weight.v1.tar"), "a layer is no raw file of a model but"),
        (set_layer("mediaType", None), "a layer is no raw file of a model but None"),
        (set_layer("annotations", None), "a layer is no raw file of a model but"),
        (set_layer("annotations", {"org.cncf.model.filepath": "../config.json"}), "leads out of its directory"),
        (set_layer("annotations", {"org.cncf.model.filepath": 5}), "a layer is no raw file of a model but"),
        (set_layer("size", -1), "the layer of config.json has no size or no SHA-256"),
        (set_layer("size", True), "the layer of config.json has no size or no SHA-256"),
        (set_layer("digest", "sha512:00"), "the layer of config.json has no size or no SHA-256"),
    ],
)
def test_manifests_that_are_wrong(
    blobs: dict[str, bytes], host: str, tmp_path: Path, change: Callable[[dict[str, Any]], None], said: str
) -> None:
    text = failed(host, put(blobs, CHECKPOINT, change), tmp_path)
    assert "is not a model that can be read" in text
    assert said in text


def test_a_manifest_without_end() -> None:
    with pytest.raises(ValueError, match="more than 4194304 bytes"):
        split_layers(b" " * ((4 << 20) + 1))


def test_what_a_source_says() -> None:
    kind = source_kind("oci")
    source = parse_source(f"oci:ghcr.io/org/x@sha256:{DIGEST}")
    assert source.spec == {"repository": "ghcr.io/org/x", "digest": DIGEST}
    assert kind.key(source.spec) == f"oci:ghcr.io/org/x@sha256:{DIGEST}"
    assert kind.named({"digest": DIGEST}) == f"the model with the digest sha256:{DIGEST}"
    assert kind.uri({"digest": DIGEST}, {}) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("oci:ghcr.io/org/x", "is named by its digest"),
        ("oci:ghcr.io/org/x:latest", "is named by its digest"),
        ("oci:ghcr.io/org/x@sha256:00", "is named by its digest"),
        (f"oci:org/x@sha256:{DIGEST}", "is not a repository of a registry"),
        (f"oci:ghcr.io/org/x:tag@sha256:{DIGEST}", "is not a repository of a registry"),
        (f"oci:user:secret@ghcr.io/x@sha256:{DIGEST}", "is named by its digest"),
    ],
)
def test_what_is_no_source(text: str, said: str) -> None:
    with pytest.raises(SourceError, match=said):
        parse_source(text)


@pytest.mark.parametrize(
    ("digest", "repository", "said"),
    [("xyz", "ghcr.io/x", "is not a digest"), (DIGEST, "../x", "is not a repository")],
)
def test_a_record_of_another_machine(digest: str, repository: str, said: str) -> None:
    with pytest.raises(ShapeError, match=said):
        source_kind("oci").check({"source": {"digest": digest}}, {"repository": repository})


def test_without_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(ToolchainError, match="the package of registries is missing"):
        Registry(Repository("ghcr.io", "x"))


def test_a_login_for_another_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("", "ghcr.io"), ("_USERNAME", "me"), ("_PASSWORD", "secret")):
        monkeypatch.setenv(f"LLMBUILD_REGISTRY{name}", value)
    assert registries._credentials("ghcr.io") == ("me", "secret")
    assert registries._credentials("ghcr.io.example") is None
    monkeypatch.delenv("LLMBUILD_REGISTRY")
    with pytest.raises(UsageError, match="LLMBUILD_REGISTRY must be set too"):
        registries._credentials("ghcr.io")


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("ghcr.io", "https://ghcr.io"),
        ("localhost:5000", "http://localhost:5000"),
        ("127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("localhost.example", "https://localhost.example"),
        ("registry:5000", "https://registry:5000"),
    ],
)
def test_only_this_machine_is_spoken_to_in_clear_text(host: str, origin: str) -> None:
    assert Repository.parse(f"{host}/x").origin == origin
