"""Publishing in a real registry: what it has is not sent again, parts go on, statements are attached, and errors are clear."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from llmbuild.canonical import digest_bytes
from llmbuild.errors import FetchError, LlmbuildError, StoreError, UsageError
from llmbuild.publishing import modelpack
from llmbuild.publishing.kind import File, Publication, Wishes
from llmbuild.publishing.kinds import oci, split
from tests.helpers.loopback import Handler, serving
from tests.helpers.publishing import FACTS, Counted, publication, publish
from tests.helpers.raw_server import raw_server, response
from tests.helpers.registry import LOGIN, RegistryServer, running_registry


def to(registry: RegistryServer, tag: str = "q4f16_1") -> str:
    return f"oci:{registry.host}/org/tiny:{tag}"


def test_a_model_as_the_specification_has_it(registry: RegistryServer, files: Path, tmp_path: Path) -> None:
    difference, reference = publish(to(registry), files, tmp_path)
    what = publication(files)
    assert (len(difference.new), difference.size) == (10, sum(file.size for file in what.files))
    data = registry.get("org/tiny/manifests/q4f16_1")
    assert reference == f"oci:{registry.host}/org/tiny@sha256:{digest_bytes(data)}"
    manifest = json.loads(data)
    assert manifest["mediaType"] == "application/vnd.oci.image.manifest.v1+json"
    assert manifest["artifactType"] == "application/vnd.cncf.model.manifest.v1+json"
    types = {layer["annotations"]["org.cncf.model.filepath"]: layer["mediaType"] for layer in manifest["layers"]}
    prefix = "application/vnd.cncf.model"
    assert types == {
        "README.md": f"{prefix}.doc.v1.raw",
        "libs/tiny-q4f16_1-web.wasm": f"{prefix}.code.v1.raw",
        "mlc-chat-config.json": f"{prefix}.weight.config.v1.raw",
        "params_shard_0.bin": f"{prefix}.weight.v1.raw",
        "params_shard_1.bin": f"{prefix}.weight.v1.raw",
        "params_shard_2.bin": f"{prefix}.weight.v1.raw",
        "tensor-cache.json": f"{prefix}.weight.config.v1.raw",
        "tokenizer.json": f"{prefix}.weight.config.v1.raw",
    }
    config = json.loads(registry.get(f"org/tiny/blobs/{manifest['config']['digest']}"))
    assert manifest["config"]["mediaType"] == "application/vnd.cncf.model.config.v1+json"
    assert config["descriptor"] == {"family": "llama", "licenses": ["apache-2.0"], "name": "tiny"}
    technical = {key: config["config"][key] for key in ("paramSize", "precision", "quantization")}
    assert technical == {"paramSize": "135M", "precision": "float16", "quantization": "q4f16_1"}
    assert config["modelfs"] == {"type": "layers", "diffIds": [layer["digest"] for layer in manifest["layers"]]}


@pytest.mark.parametrize("dropped", [None, 2])
def test_what_was_sent_is_counted_once(
    registry: RegistryServer, files: Path, tmp_path: Path, dropped: int | None
) -> None:
    """A connection that is lost in the middle of a large blob: what went on is not counted again."""
    kind, place = split(to(registry))
    what, sent, destination = publication(files), Counted(), kind.open(place, Wishes(), tmp_path / "state")
    difference = destination.compare(what)
    patches = []

    def lose(_number: int) -> bool:
        if registry.requests[-1].method == "PATCH":
            patches.append(1)
            return len(patches) != dropped
        return True

    registry.before = lose
    destination.send(what, difference, sent)
    assert len(patches) == (3 if dropped is None else 4)
    assert sent.total == difference.size
    assert (min(sent.sizes) < 0) is (dropped is not None)


def test_what_is_attached(registry: RegistryServer, files: Path, tmp_path: Path) -> None:
    _, reference = publish(to(registry), files, tmp_path)
    digest = reference.rpartition("sha256:")[2]
    # This registry lists no referrers, so that there is an index under their tag.
    index = json.loads(registry.get(f"org/tiny/manifests/sha256-{digest}"))
    assert index["mediaType"] == "application/vnd.oci.image.index.v1+json"
    found = {}
    for one in index["manifests"]:
        manifest = json.loads(registry.get(f"org/tiny/manifests/{one['digest']}"))
        assert manifest["subject"]["digest"] == f"sha256:{digest}"
        assert manifest["artifactType"] == one["artifactType"]
        (layer,) = manifest["layers"]
        found[layer["annotations"]["org.cncf.model.filepath"]] = registry.get(f"org/tiny/blobs/{layer['digest']}")
    what = {file.name: file for file in publication(files).files}
    statement = "provenance/tiny-q4f16_1-MLC.intoto.json"
    assert found == {name: what[name].whole() for name in ("SHA256SUMS", statement)}
    assert {one["artifactType"] for one in index["manifests"]} == {"application/vnd.in-toto+json", "text/plain"}


def test_a_second_publication_only_looks(registry: RegistryServer, files: Path, tmp_path: Path) -> None:
    _, reference = publish(to(registry), files, tmp_path)
    registry.requests.clear()
    difference, again = publish(to(registry), files, tmp_path)
    assert (difference.empty, again) == (True, reference)
    assert {one.method for one in registry.requests} == {"GET"}


def test_only_what_changed_is_sent(registry: RegistryServer, files: Path, tmp_path: Path) -> None:
    _, first = publish(to(registry), files, tmp_path)
    (files / "mlc-chat-config.json").write_bytes(b"{}" * 40)
    (files / "params_shard_2.bin").unlink()
    registry.requests.clear()
    difference, second = publish(to(registry), files, tmp_path)
    assert (difference.changed, difference.removed) == (("mlc-chat-config.json",), ("params_shard_2.bin",))
    assert difference.reference == first != second
    sums = publication(files).named(["SHA256SUMS", "mlc-chat-config.json"])
    sent = {digest: size for digest, size in registry.sent().items() if size > 2}
    assert {file.digest: file.size for file in sums}.items() <= sent.items()
    assert len(sent) == len(sums) + 1, "those two and the configuration"
    assert json.loads(registry.get(f"org/tiny/manifests/{first.rpartition('@')[2]}")), "the old one is still there"


def test_an_attachment_alone_is_added(registry: RegistryServer, files: Path, tmp_path: Path) -> None:
    _, first = publish(to(registry), files, tmp_path)
    (files / "provenance/tiny-q4f16_1-MLC.intoto.json").write_text("{}")
    difference, second = publish(to(registry), files, tmp_path)
    assert first == second
    assert not difference.empty
    index = json.loads(registry.get(f"org/tiny/manifests/sha256-{first.rpartition(':')[2]}"))
    assert len(index["manifests"]) == 4, "what was attached before stays"


def test_a_registry_with_a_login(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running_registry(tmp_path / "registry", login=True) as registry:
        # What oras and docker would use.
        monkeypatch.setenv("ORAS_USER", LOGIN[0])
        monkeypatch.setenv("ORAS_PASS", LOGIN[1])
        text = refused(registry, files, tmp_path)
        assert "the registry asks for a login" in text
        login(monkeypatch, registry.host, "wr0ng-secret")
        text = refused(registry, files, tmp_path)
        assert "the registry refuses" in text
        assert "wr0ng-secret" not in text
        login(monkeypatch, "another.example", LOGIN[1])
        assert "the registry asks for a login" in refused(registry, files, tmp_path)
        assert {one.authorization for one in registry.requests if one.status == 200} == set()
        login(monkeypatch, registry.host, LOGIN[1])
        _, reference = publish(to(registry), files, tmp_path)
        assert publish(to(registry), files, tmp_path)[1] == reference


def login(monkeypatch: pytest.MonkeyPatch, host: str, password: str) -> None:
    monkeypatch.setenv("LLMBUILD_REGISTRY", host)
    monkeypatch.setenv("LLMBUILD_REGISTRY_USERNAME", LOGIN[0])
    monkeypatch.setenv("LLMBUILD_REGISTRY_PASSWORD", password)


def refused(registry: RegistryServer, files: Path, tmp_path: Path) -> str:
    with pytest.raises(LlmbuildError) as found:
        publish(to(registry), files, tmp_path)
    return str(found.value)


def test_a_login_that_is_not_there(files: Path, tmp_path: Path) -> None:
    challenge = 'WWW-Authenticate: Basic realm="here"'
    with (
        raw_server(response(b"", challenge, status="401 Unauthorized")) as server,
        pytest.raises(FetchError, match="the registry asks for a login"),
    ):
        publish(f"oci:{server.url.removeprefix('http://')}/x:y", files, tmp_path)


def test_half_a_login(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMBUILD_REGISTRY_PASSWORD", "x")
    with pytest.raises(UsageError, match="LLMBUILD_REGISTRY and LLMBUILD_REGISTRY_USERNAME must be set too"):
        publish("oci:localhost:1/x:y", files, tmp_path)


@pytest.fixture
def tokens() -> Iterator[tuple[str, list[tuple[str, str | None]]]]:
    """A registry that wants tokens, one to read and one to write, as those of hubs of code do."""
    asked: list[tuple[str, str | None]] = []

    class Tokens(Handler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            host = f"127.0.0.1:{self.server.server_port}"  # type: ignore[attr-defined]
            given = self.headers.get("Authorization")
            asked.append((f"{self.command} {self.path}", given))
            if self.path.startswith("/token"):
                scope = "write" if "push" in self.path else "read"
                self.reply(200, json.dumps({"token": f"{scope}-token"}).encode())
                return
            wanted = "read" if self.command in ("GET", "HEAD") else "write"
            if given == "Bearer write-token" or given == f"Bearer {wanted}-token":
                self.reply(404 if wanted == "read" else 403, b"{}")
                return
            scope = "repository:x:pull" + (",push" if wanted == "write" else "")
            challenge = f'Bearer realm="http://{host}/token",service="here",scope="{scope}"'
            self.reply(401, b"{}", {"WWW-Authenticate": challenge})

        do_HEAD = do_POST = do_PUT = do_GET

    with serving(Tokens) as address:
        yield address.removeprefix("http://"), asked


def test_a_token_that_reads_is_exchanged_for_one_that_writes(
    tokens: tuple[str, list[tuple[str, str | None]]], files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, requested = tokens
    login(monkeypatch, host, "s3cret")
    with pytest.raises(FetchError, match="the registry refuses") as found:
        publish(f"oci:{host}/x:y", files, tmp_path)
    assert "token" not in str(found.value).replace("server of tokens", "")
    asked = [(what.partition(" /token")[0], given) for what, given in requested]
    assert ("POST /v2/x/blobs/uploads/", "Bearer write-token") in asked
    assert {given.partition(" ")[0] for what, given in requested if what.startswith("GET /token")} == {"Basic"}
    assert {given for what, given in requested if "/v2/x/" in what} <= {
        None,
        "Bearer read-token",
        "Bearer write-token",
    }


def test_a_server_of_tokens_without_tls(files: Path, tmp_path: Path) -> None:
    challenge = 'WWW-Authenticate: Bearer realm="http://tokens.example/token",service="x"'
    with (
        raw_server(response(b"", challenge, status="401 Unauthorized")) as server,
        pytest.raises(FetchError, match="server of tokens is not https"),
    ):
        publish(f"oci:{server.url.removeprefix('http://')}/x:y", files, tmp_path)
    assert len(server.requests) == 1


def test_an_upload_elsewhere_gets_no_credentials(files: Path, tmp_path: Path) -> None:
    there = response(b"", status="404 Not Found")
    upload = response(b"", "Location: http://elsewhere.example/upload", status="202 Accepted")
    answers = [response(b"{}"), there, *[there] * 10, there, upload]
    with (
        raw_server(*answers) as server,
        pytest.raises(FetchError, match="the registry names a place that is not https"),
    ):
        publish(f"oci:{server.url.removeprefix('http://')}/x:y", files, tmp_path)


def test_an_upload_without_a_place(files: Path, tmp_path: Path) -> None:
    there = response(b"", status="404 Not Found")
    answers = [response(b"{}"), there, *[there] * 10, there, response(b"", status="202 Accepted")]
    with raw_server(*answers) as server, pytest.raises(FetchError, match="names no place for an upload"):
        publish(f"oci:{server.url.removeprefix('http://')}/x:y", files, tmp_path)


def test_a_registry_that_understands_nothing(files: Path, tmp_path: Path) -> None:
    with (
        raw_server(response(b"{}"), response(b"", status="400 Bad Request")) as server,
        pytest.raises(FetchError, match="the registry refuses") as found,
    ):
        publish(f"oci:{server.url.removeprefix('http://')}/x:y", files, tmp_path)
    assert "check the name of the repository" in str(found.value)


def test_a_registry_that_is_busy_and_one_that_is_not_there(files: Path, tmp_path: Path) -> None:
    with (
        raw_server(response(b"{}"), response(b"", "Retry-After: 0", status="503 Busy")) as server,
        pytest.raises(FetchError, match="the registry cannot be reached") as found,
    ):
        publish(f"oci:{server.url.removeprefix('http://')}/x:y", files, tmp_path)
    assert "answered 503 (3 attempts)" in str(found.value)
    with pytest.raises(FetchError, match="the registry cannot be reached") as found:
        publish(f"oci:{server.url.removeprefix('http://')}/x:y", files, tmp_path)
    assert "the connection failed" in str(found.value)


def test_the_notes_are_for_their_owner_alone(registry: RegistryServer, files: Path, tmp_path: Path) -> None:
    seen = []

    def look(_number: int) -> bool:
        notes = tmp_path / "state/uploads.json"
        if registry.requests[-1].method == "PATCH":
            seen.append(stat.S_IMODE(notes.stat().st_mode))
        return True

    registry.before = look
    publish(to(registry), files, tmp_path / "state")
    assert seen == [0o600] * 3
    assert not (tmp_path / "state/uploads.json").exists()


@pytest.mark.parametrize("notes", ["[]", "{", '{"%s": 5}', '{"%s": "http://127.0.0.1:9/v2/x"}'])
def test_notes_that_are_no_use(registry: RegistryServer, files: Path, tmp_path: Path, notes: str) -> None:
    (file,) = publication(files).named(["params_shard_1.bin"])
    state = tmp_path / "state"
    state.mkdir()
    gone = f"http://{registry.host}/v2/org/tiny/blobs/uploads/12345678-1234-1234-1234-123456789012?_state=x"
    key = f"{registry.host}/org/tiny@{file.digest}"
    text = notes.replace("%s", key).replace("http://127.0.0.1:9/v2/x", gone)
    (state / "uploads.json").write_text(text)
    publish(to(registry), files, state)
    assert registry.sent()[file.digest] == file.size


def test_notes_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    notes = oci._Notes(tmp_path / "state/uploads.json", "ghcr.io/x")
    with pytest.raises(StoreError, match="the place of an upload cannot be noted"):
        notes.put(digest_bytes(b""), "https://ghcr.io/v2/x/blobs/uploads/1")


def test_a_large_result_that_gets_shorter(registry: RegistryServer, tmp_path: Path) -> None:
    path = tmp_path / "shard"
    path.write_bytes(b"x" * 3000)
    file = File("params_shard_0.bin", digest_bytes(path.read_bytes()), 3000, "weights", path)
    what = Publication.of([file], FACTS)
    kind, place = split(to(registry))
    destination = kind.open(place, Wishes(), tmp_path / "state")
    difference = destination.compare(what)
    path.write_bytes(b"x" * 1000)
    with pytest.raises(StoreError, match="a result changed while it was published"):
        destination.send(what, difference, lambda _size: None)


@pytest.mark.parametrize("place", ["ghcr.io/x", "ghcr.io/x:", "ghcr.io/x:a/b", "ghcr.io:80/x", "ghcr.io/x:-a"])
def test_a_destination_without_a_tag(place: str) -> None:
    with pytest.raises(UsageError, match="has no tag"):
        oci.KIND.check(place)


@pytest.mark.parametrize(
    "place", ["x:y", "host/x:y", "ghcr.io/Org/x:y", "ghcr.io/a//b:y", "user@ghcr.io/a:y", "ghcr.io/a..b:y"]
)
def test_what_is_no_repository(place: str) -> None:
    with pytest.raises(UsageError, match="is not a repository of a registry"):
        oci.KIND.check(place)


def test_the_manifest_is_a_function_of_the_files(files: Path) -> None:
    assert modelpack.manifest(publication(files)) == modelpack.manifest(publication(files))
    wanted = modelpack.manifest(publication(files))
    index = modelpack.referrers({wanted: "text/plain"}, None)
    assert modelpack.referrers({wanted: "text/plain"}, index) == index
    assert modelpack.referrers({wanted: "text/plain"}, b"{") == index
    assert modelpack.referrers({wanted: "text/plain"}, b'{"manifests": [5]}') == index


def test_requests_are_what_oras_sends() -> None:
    """The parts of oras' client that are used without being documented."""
    from oras.provider import Registry as Client

    assert callable(Client.do_request.__wrapped__)  # type: ignore[attr-defined]
    assert isinstance(Client(hostname="localhost").session, requests.Session)
