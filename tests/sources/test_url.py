"""Files behind a URL, single ones and archives."""

from __future__ import annotations

import hashlib
import io
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from llmbuild.errors import FetchError
from llmbuild.manifest.lock import Lock
from llmbuild.sources import observe, size
from llmbuild.sources.kind import Source
from llmbuild.urls import kept
from tests.helpers.fetching import Digests, fetch_source
from tests.helpers.hub_server import COMMIT, Hub, Repo
from tests.helpers.raw_server import endless, raw_server, response

FILES = {"config.json": b"{}", "model.safetensors": b"w" * 5000, "README.md": b"no"}
NEEDED = {"config.json": b"{}", "model.safetensors": b"w" * 5000}


def tar(files: dict[str, bytes], mode: str = "w:gz") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as file:  # type: ignore[call-overload]
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return out.getvalue()


def zipped(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in files.items():
            file.writestr(name, content)
    return out.getvalue()


def under(folder: str, files: dict[str, bytes] = FILES) -> dict[str, bytes]:
    return {f"{folder}/{name}": content for name, content in files.items()}


def served(hub: Hub, name: str, content: bytes, sha256: str | None = None) -> Source:
    hub.repos["any/files"] = Repo({name: content})
    digest = sha256 or hashlib.sha256(content).hexdigest()
    return Source("https", {"url": f"{hub.url}/raw/any/files/resolve/{COMMIT}/{name}", "sha256": digest})


def test_a_gguf_file(the_hub: Hub, tmp_path: Path) -> None:
    the_hub.failures += [("status", 503), ("drop", 2)]
    fetched = fetch_source(served(the_hub, "x.gguf", b"GGUF-data"), tmp_path)
    assert fetched.files == {"model.gguf": b"GGUF-data"}
    assert "url" not in fetched.params["source"]
    assert fetched.params["source"]["form"] == "gguf"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("m.tar.gz", tar(FILES)),
        ("m.tgz", tar(under("model"))),
        ("m.tar", tar(under("./a/b"), "w")),
        ("m.tar.xz", tar({**under("b"), **under("a/deeper", {"config.json": b"other"})}, "w:xz")),
        ("m.zip", zipped(FILES)),
        ("m.zip", zipped(under("model"))),
    ],
)
def test_an_archive_with_a_checkpoint(the_hub: Hub, tmp_path: Path, name: str, content: bytes) -> None:
    assert fetch_source(served(the_hub, name, content), tmp_path).files == NEEDED
    assert list((tmp_path / "out-scratch").iterdir()) == []


def test_an_archive_with_a_gguf_file(the_hub: Hub, tmp_path: Path) -> None:
    assert fetch_source(served(the_hub, "m.zip", zipped({"a/x.gguf": b"G"})), tmp_path).files == {"model.gguf": b"G"}


def test_wrong_bytes(the_hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(FetchError, match="not what was promised"):
        fetch_source(served(the_hub, "x.gguf", b"GGUF", "0" * 64), tmp_path)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    "name", ["../config.json", "/tmp/config.json", "a/../../config.json", "C:\\x", "..\\config.json"]
)
@pytest.mark.parametrize("pack", [tar, zipped])
def test_names_that_leave_the_folder(the_hub: Hub, tmp_path: Path, name: str, pack: object) -> None:
    content = pack({**FILES, name: b"evil"})  # type: ignore[operator]
    suffix = "zip" if pack is zipped else "tar.gz"
    with pytest.raises(FetchError, match="unsafe name"):
        fetch_source(served(the_hub, f"m.{suffix}", content), tmp_path)
    assert list((tmp_path / "out").iterdir()) == []


def test_links_in_a_tar_are_not_followed(the_hub: Hub, tmp_path: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as file:
        for name, content in FILES.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
        link = tarfile.TarInfo("tokenizer.json")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        file.addfile(link)
    assert fetch_source(served(the_hub, "m.tar.gz", out.getvalue()), tmp_path).files == NEEDED


def test_links_in_a_zip_are_not_followed(the_hub: Hub, tmp_path: Path) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        for name, content in FILES.items():
            file.writestr(name, content)
        link = zipfile.ZipInfo("tokenizer.json")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        file.writestr(link, "/etc/passwd")
    assert fetch_source(served(the_hub, "m.zip", out.getvalue()), tmp_path).files == NEEDED


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("m.tar.gz", b"not an archive", "is damaged"),
        ("m.zip", b"not an archive", "is damaged"),
        ("m.tar.gz", tar(FILES)[:-40], "is damaged"),
        ("m.zip", zipped(FILES)[:-10], "is damaged"),
        ("m.zip", zipped({"a.txt": b""}), "holds no checkpoint"),
    ],
)
def test_archives_that_hold_nothing(the_hub: Hub, tmp_path: Path, name: str, content: bytes, said: str) -> None:
    with pytest.raises(FetchError, match=said):
        fetch_source(served(the_hub, name, content), tmp_path)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("https://127.0.0.1:9/model.bin", "cannot hold a checkpoint"),
        ("http://192.0.2.1/model.gguf", "only https is fetched"),
        ("https://127.0.0.1:9/model.gguf", "cannot be downloaded"),
    ],
)
def test_urls_that_are_not_fetched(tmp_path: Path, url: str, said: str) -> None:
    with pytest.raises(FetchError, match=said):
        fetch_source(Source("https", {"url": url, "sha256": "0" * 64}), tmp_path)


def test_offline(the_hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(FetchError, match="--offline"):
        fetch_source(served(the_hub, "x.gguf", b"GGUF"), tmp_path, offline=True)
    assert the_hub.seen == []


def test_netrc_credentials_go_to_their_host_only(the_hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    netrc = tmp_path / "home" / ".netrc"
    netrc.write_text("machine 127.0.0.1 login me password word\n")
    netrc.chmod(0o600)
    the_hub.repos["any/files"] = Repo({"x.gguf": b"GGUF"}, large={"x.gguf"})
    the_hub.redirect = f"{the_hub.other.replace('127.0.0.1', 'localhost')}/raw/any/files/resolve/{COMMIT}/x.gguf"
    url = f"{the_hub.url}/any/files/resolve/{COMMIT}/x.gguf"
    fetch_source(Source("https", {"url": url, "sha256": hashlib.sha256(b"GGUF").hexdigest()}), tmp_path)
    assert [seen.token for seen in the_hub.seen] == ["Basic bWU6d29yZA==", None]


def test_a_size_that_the_lock_knows_bounds_what_is_read(tmp_path: Path) -> None:
    digest = hashlib.sha256(b"GGUF").hexdigest()
    with raw_server(endless(response(length=None), b"x" * 4096, most=1 << 20)) as server:
        source = Source("https", {"url": f"{server.url}/x.gguf", "sha256": digest})
        lock = Lock({source.spec["url"]: {"sha256": digest, "files": {"model.gguf": {"sha256": digest, "size": 4}}}})
        with pytest.raises(FetchError, match="4 bytes were promised, there are more"):
            fetch_source(source, tmp_path, lock=lock)


def asked(source: Source, root: Path, **options: bool) -> int | None:
    return size(*observe(source, root, Digests(), Lock(), **options))


def test_a_server_is_asked_for_the_size_once(the_hub: Hub, tmp_path: Path) -> None:
    source = served(the_hub, "x.gguf", b"GGUF-data")
    assert asked(source, tmp_path) == 9
    assert asked(served(the_hub, "x.tar", b"12345"), tmp_path) == 5
    assert len(the_hub.seen) == 2
    assert asked(source, tmp_path, offline=True) is None
    assert len(the_hub.seen) == 2
    # What is wrong a build will say: a plan has no number.
    the_hub.failures += [("status", 503), ("status", 404)]
    assert (asked(source, tmp_path), asked(source, tmp_path)) == (None, None)
    assert asked(Source("https", {"url": "http://example.com/x.gguf", "sha256": "0" * 64}), tmp_path) is None


def test_a_server_that_does_not_say_the_size(tmp_path: Path) -> None:
    with raw_server(response(b"GGUF", length=None), response(length="many")) as server:
        source = Source("https", {"url": f"{server.url}/x.gguf", "sha256": "0" * 64})
        assert (asked(source, tmp_path), asked(source, tmp_path)) == (None, None)


def with_query(root: Path, url: str, **more: str) -> Source:
    """A source whose whole URL stands in a manifest in `root`."""
    (root / "buildfile.toml").write_text(
        f'[models.m]\nnote = 3\nsource = "{url}"\nadapters = ["x", {{ a = "https://[" }}]\n'
    )
    return Source("https", {"url": kept(url), **more})


def test_the_query_of_a_url_is_read_from_the_manifest(tmp_path: Path) -> None:
    sha256 = hashlib.sha256(b"GGUF").hexdigest()
    manifest = tmp_path / "buildfile.toml"
    with raw_server(response(b"GGUF")) as server:
        source = with_query(tmp_path, f"{server.url}/x.gguf?sig=SECRET#part", sha256=sha256)
        fetched = fetch_source(source, tmp_path, manifest=manifest)
        assert server.requests[0].startswith("GET /x.gguf?sig=SECRET HTTP")
    assert fetched.files == {"model.gguf": b"GGUF"}
    assert "SECRET" not in f"{fetched.params} {fetched.hints}"
    changed = with_query(tmp_path, f"{server.url}/x.gguf?sig=OTHER", sha256=sha256)
    assert observe(changed, tmp_path, Digests(), Lock())[0] == fetched.params
    for number, text in enumerate((None, 'source = "https://h/x.gguf?sig=SECRET"', "not TOML")):
        if text is not None:
            manifest.write_text(text)
        with pytest.raises(FetchError, match="the query of the URL is not known"):
            fetch_source(source, tmp_path, manifest=None if text is None else manifest, name=str(number))
