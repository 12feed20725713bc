"""The fetch task: what enters its key, and what it puts out."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

import pytest

from llmbuild.engine.action import Action
from llmbuild.errors import FetchError
from llmbuild.manifest.lock import Lock
from llmbuild.sources import lock_key, observe
from llmbuild.sources.kind import Source
from llmbuild.tasks.fetch import KIND
from tests.helpers.checkpoints import make_checkpoint
from tests.helpers.fetching import Digests, Fetched, fetch_source
from tests.helpers.hub_server import COMMIT, Repo, running_hub


def key_of(source: Source, root: Path, **options: object) -> str:
    params, hints = observe(source, root, Digests(), Lock(), **options)  # type: ignore[arg-type]
    return Action(KIND.name, KIND.version, params, {}, {}, hints).digest


def test_a_checkpoint_comes_out_as_it_is(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint", "llama", shards=2)
    fetched = fetch_source(Source("path", {"path": "checkpoint"}), tmp_path)
    assert fetched.files == {path.name: path.read_bytes() for path in checkpoint.iterdir()}


def test_the_key_is_the_content(tmp_path: Path) -> None:
    for name, content in (("a", b"{}"), ("b", b"{}"), ("c", b"{ }")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_bytes(content)
        (tmp_path / name / "unneeded.md").write_text(name)
    keys = [key_of(Source("path", {"path": name}), tmp_path) for name in "abc"]
    assert keys[0] == keys[1] != keys[2]


def test_where_bytes_are_found_is_not_in_the_key(tmp_path: Path) -> None:
    def url(place: str, digest: str = "0") -> Source:
        return Source("https", {"url": place, "sha256": digest * 64})

    one = key_of(url("https://a.example/x.gguf"), tmp_path)
    assert one == key_of(url("https://b.example/mirror/y.gguf"), tmp_path, offline=True, partial=tmp_path)
    assert one != key_of(url("https://a.example/x.gguf", "1"), tmp_path)
    assert one != key_of(url("https://a.example/x.zip"), tmp_path)


def test_every_part_of_an_identity_is_in_the_key(tmp_path: Path) -> None:
    wheel = {"name": "n", "version": "1", "path": "p/x.gguf"}
    model = {"repo": "o/m", "revision": COMMIT}
    sources = [Source("pypi", wheel), *(Source("pypi", {**wheel, part: "2"}) for part in (*wheel, "sha256"))]
    sources += [Source("hf", model), Source("hf", {**model, "repo": "o/n"}), Source("hf", {**model, "path": "x.gguf"})]
    sources += [Source("hf", {**model, "revision": "f" * 40})]
    keys = [key_of(source, tmp_path, offline=True) for source in sources]
    keys.append(key_of(sources[0], tmp_path, offline=True, source_format="gguf"))
    assert len(set(keys)) == len(keys)
    assert key_of(sources[0], tmp_path, source_format="auto") == keys[0]


@pytest.mark.parametrize(
    ("source", "source_format", "key"),
    [
        (Source("path", {"path": "x"}), None, "path:x"),
        (Source("gguf", {"path": "m/x.gguf"}), None, "gguf:m/x.gguf"),
        (Source("hf", {"repo": "o/m", "revision": "main"}), None, "hf:o/m@main"),
        (Source("hf", {"repo": "o/m", "revision": "v1", "path": "x.gguf"}), "gguf", "hf:o/m@v1/x.gguf#gguf"),
        (Source("https", {"url": "https://h/x.gguf", "sha256": "0" * 64}), None, "https://h/x.gguf"),
    ],
)
def test_lock_keys(source: Source, source_format: str | None, key: str) -> None:
    assert lock_key(source, source_format) == key


def test_two_fetches_of_the_same_bytes_share_one_partial_file(tmp_path: Path) -> None:
    content = bytes(1 << 20)
    with running_hub() as hub:
        hub.repos["any/files"] = Repo({"x.gguf": content})
        url = f"{hub.url}/raw/any/files/resolve/{COMMIT}/x.gguf"
        source = Source("https", {"url": url, "sha256": hashlib.sha256(content).hexdigest()})
        done: list[Fetched] = []
        threads = [
            threading.Thread(target=lambda name=name: done.append(fetch_source(source, tmp_path, name=name)))
            for name in ("one", "two", "three")
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    assert [fetched.files for fetched in done] == [{"model.gguf": content}] * 3
    assert list((tmp_path / "partial").iterdir()) == []


def test_a_failed_fetch_leaves_no_output(tmp_path: Path) -> None:
    source = Source("https", {"url": "http://127.0.0.1:9/x.gguf", "sha256": "0" * 64})
    from llmbuild.sources import request

    with pytest.MonkeyPatch.context() as patch, pytest.raises(FetchError, match="cannot be downloaded"):
        patch.setattr(request, "POLICY", request.Patience(attempts=2, delay=0.0))
        fetch_source(source, tmp_path)
    assert list((tmp_path / "out").iterdir()) == []
