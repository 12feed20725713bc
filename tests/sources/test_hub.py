"""Models of a hub, against a server that redirects, drops connections and lies."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from llmbuild.errors import FetchError, LlmbuildError, UsageError
from llmbuild.manifest.lock import Lock, read_lock, write_lock
from llmbuild.sources import hub
from llmbuild.sources.kind import Source
from tests.helpers.fetching import fetch_observed, fetch_source
from tests.helpers.hub_server import COMMIT, Hub, Repo
from tests.helpers.raw_server import endless, raw_server, response

WEIGHTS = bytes(range(256)) * 4096  # 1 MiB
SOURCE = Source("hf", {"repo": "org/model", "revision": "main"})
TOKEN = "hf_secretsecretsecret"


@pytest.fixture
def repo(the_hub: Hub) -> Repo:
    files = {
        "config.json": b'{"model_type": "llama"}',
        "tokenizer.json": b"{}",
        "model.safetensors": WEIGHTS,
        "pytorch_model.bin": b"old",
        "README.md": b"# hi",
        "onnx/model.onnx": b"onnx",
        ".gitattributes": b"",
    }
    the_hub.repos["org/model"] = Repo(files, large={"model.safetensors", "pytorch_model.bin"})
    return the_hub.repos["org/model"]


def error_of(root: Path, source: Source = SOURCE) -> str:
    """The message of a fetch that fails; nothing may be left in the output."""
    with pytest.raises(LlmbuildError) as caught:
        fetch_source(source, root)
    assert not (root / "out").exists() or not any((root / "out").iterdir())
    assert TOKEN not in str(caught.value)
    return str(caught.value)


def test_needed_files_of_a_commit(the_hub: Hub, repo: Repo, tmp_path: Path) -> None:
    lock = Lock()
    fetched = fetch_source(SOURCE, tmp_path, lock=lock)
    assert fetched.files == {name: repo.files[name] for name in ("config.json", "tokenizer.json", "model.safetensors")}
    assert fetched.params == {"source": {"kind": "hf", "repo": "org/model", "commit": COMMIT}, "files": {}}
    assert fetched.reported[-1] == (len(WEIGHTS) + 25, len(WEIGHTS) + 25, "bytes")
    assert all(f"/resolve/{COMMIT}/" in seen.path for seen in the_hub.seen if "/resolve/" in seen.path)
    pin = lock.get("hf:org/model@main")
    assert pin is not None and lock.changed
    assert pin["commit"] == COMMIT
    assert pin["files"]["model.safetensors"] == {"size": len(WEIGHTS), "sha256": hashlib.sha256(WEIGHTS).hexdigest()}
    assert not any((tmp_path / "partial").iterdir())


def index_of(*files: str) -> bytes:
    return json.dumps({"weight_map": {f"model.layers.{n}.weight": file for n, file in enumerate(files)}}).encode()


def test_the_index_that_counts_names_the_files(the_hub: Hub, repo: Repo, tmp_path: Path) -> None:
    shards = {"weights b.safetensors": b"b", "weights-a.safetensors": b"a"}
    del repo.files["model.safetensors"], repo.files["pytorch_model.bin"]
    index = {"model.safetensors.index.json": index_of(*shards)}
    repo.files |= shards | index | {"consolidated.safetensors": b"all", "model-00001-of-00002.safetensors": b"other"}
    repo.files["pytorch_model.bin.index.json"] = b"not read"
    fetched = fetch_source(SOURCE, tmp_path)
    wanted = ("config.json", "tokenizer.json", *shards, *index)
    assert fetched.files == {name: repo.files[name] for name in wanted}
    assert fetched.hints["unread"] == "pytorch_model.bin.index.json"
    (note,) = fetched.notes
    assert note.startswith("pytorch_model.bin.index.json is not read")
    del repo.files["weights b.safetensors"]
    assert "shard weights b.safetensors is missing" in error_of(tmp_path / "again")
    repo.files["model.safetensors.index.json"] = b"{}"
    assert "model.safetensors.index.json: weight_map: the weight index has no weight_map" in error_of(tmp_path / "none")
    the_hub.failures += [("status", 404)]
    assert "404" in error_of(tmp_path / "gone")
    the_hub.failures += [("status", 503), ("drop", 3)]
    assert "has no weight_map" in error_of(tmp_path / "in the end")
    the_hub.failures += [("status", 503)] * 9
    assert "cannot be downloaded" in error_of(tmp_path / "never")
    the_hub.failures.clear()
    repo.announced["model.safetensors.index.json"] = "0" * 40
    assert "it has another digest than the hub announces" in error_of(tmp_path / "lie")
    del repo.announced["model.safetensors.index.json"]
    repo.files["model.safetensors.index.json"] = bytes((16 << 20) + 1)
    assert "is too large to be an index" in error_of(tmp_path / "large")


@pytest.mark.parametrize("part", [1, 2])
def test_the_parts_of_a_gguf_file(repo: Repo, tmp_path: Path, part: int) -> None:
    parts = {f"Q4/tiny-0000{n}-of-00002.gguf": b"GGUF%d" % n for n in (1, 2)}
    repo.files |= parts
    source = Source("hf", {"repo": "org/model", "revision": "main", "path": f"Q4/tiny-0000{part}-of-00002.gguf"})
    wanted = {f"model-0000{n}-of-00002.gguf": b"GGUF%d" % n for n in (1, 2)}
    lock = Lock()
    assert fetch_source(source, tmp_path, lock=lock).files == wanted
    assert fetch_source(source, tmp_path, lock=lock, name="again").files == wanted
    del repo.files["Q4/tiny-00001-of-00002.gguf"], repo.files["config.json"]
    there = Source("hf", {"repo": "org/model", "revision": "main", "path": "Q4/tiny-00002-of-00002.gguf"})
    with pytest.raises(LlmbuildError, match=r"part Q4/tiny-00001-of-00002.gguf of the GGUF file is missing"):
        fetch_source(there, tmp_path, name="gone")


def test_the_order_of_a_transfer(the_hub: Hub, repo: Repo, tmp_path: Path) -> None:
    shards = {f"model-0000{number}-of-00002.safetensors": WEIGHTS for number in (1, 2)}
    del repo.files["model.safetensors"]
    repo.files |= shards | {"quantize_config.json": b"{}", "model.safetensors.index.json": index_of(*shards)}
    repo.files |= {"generation_config.json": b"{}", "added_tokens.json": b"{}"}
    fetch_source(SOURCE, tmp_path)
    # The index is read before, since it names the files.
    assert [seen.path.rpartition("/")[2] for seen in the_hub.seen if "/resolve/" in seen.path] == [
        "model.safetensors.index.json",
        *("config.json", "quantize_config.json", "model.safetensors.index.json"),
        *("added_tokens.json", "generation_config.json", "tokenizer.json"),
        *shards,
    ]


def test_a_pinned_revision_asks_the_hub_nothing(the_hub: Hub, repo: Repo, tmp_path: Path) -> None:
    lock = Lock()
    first = fetch_source(SOURCE, tmp_path, lock=lock)
    write_lock(tmp_path / "llmbuild.lock", lock)
    repo.revisions, repo.commit = {COMMIT}, "f" * 40
    the_hub.seen.clear()
    second = fetch_source(SOURCE, tmp_path, lock=read_lock(tmp_path / "llmbuild.lock"), name="again")
    assert (second.params, second.files) == (first.params, first.files)
    assert not any(seen.path.startswith("/api/") for seen in the_hub.seen)


def test_a_commit_as_revision_needs_no_lock(repo: Repo, tmp_path: Path) -> None:
    source = Source("hf", {"repo": "org/model", "revision": COMMIT})
    assert fetch_source(source, tmp_path).files["model.safetensors"] == WEIGHTS


def test_offline(the_hub: Hub, repo: Repo, tmp_path: Path) -> None:
    with pytest.raises(FetchError, match="not pinned"):
        fetch_source(SOURCE, tmp_path, offline=True)
    with pytest.raises(FetchError, match="--offline"):
        fetch_source(Source("hf", {"repo": "org/model", "revision": COMMIT}), tmp_path, offline=True)
    assert the_hub.seen == []


def test_torch_weights_when_asked_or_alone(repo: Repo, tmp_path: Path) -> None:
    asked = fetch_source(SOURCE, tmp_path, source_format="huggingface-torch")
    assert set(asked.files) == {"config.json", "tokenizer.json", "pytorch_model.bin"}
    assert asked.params["source"]["format"] == "huggingface-torch"
    del repo.files["model.safetensors"]
    assert set(fetch_source(SOURCE, tmp_path, name="alone").files) == set(asked.files)


def test_one_gguf_file_by_its_path(repo: Repo, tmp_path: Path) -> None:
    repo.files.update({"a.Q4_0.gguf": b"GGUFa", "b.Q8_0.gguf": b"GGUFb"})
    source = Source("hf", {"repo": "org/model", "revision": "main", "path": "b.Q8_0.gguf"})
    assert fetch_source(source, tmp_path).files == {"model.gguf": b"GGUFb"}
    wrong = Source("hf", {"repo": "org/model", "revision": "main", "path": "b.Q8.gguf"})
    with pytest.raises(FetchError, match=r"did you mean 'b.Q8_0.gguf'"):
        fetch_source(wrong, tmp_path, name="wrong")


@pytest.mark.parametrize("at", [0, 1000, len(WEIGHTS) - 1])
def test_a_dropped_connection_is_resumed(the_hub: Hub, repo: Repo, tmp_path: Path, at: int) -> None:
    del repo.files["tokenizer.json"], repo.files["config.json"]
    repo.files["adapter_config.json"] = b"{}"
    repo.files["adapter_model.safetensors"] = repo.files.pop("model.safetensors")
    repo.large.add("adapter_model.safetensors")
    the_hub.failures += [("", None), ("drop", at), ("drop", 0)]
    assert fetch_source(SOURCE, tmp_path).files["adapter_model.safetensors"] == WEIGHTS
    ranges = [seen.range for seen in the_hub.seen if seen.server == "other"]
    assert ranges == [None, f"bytes={at}-" if at else None, f"bytes={at}-" if at else None]


def test_many_drops_with_progress_are_no_failure(the_hub: Hub, repo: Repo, tmp_path: Path) -> None:
    the_hub.failures += [("", None)] * 2 + [("drop", 100_000)] * 8
    assert fetch_source(SOURCE, tmp_path).files["model.safetensors"] == WEIGHTS


def test_a_later_run_goes_on_where_this_one_stopped(the_hub: Hub, repo: Repo, tmp_path: Path) -> None:
    the_hub.failures += [("", None), ("", None), ("drop", 500_000), ("status", 503), ("status", 503), ("status", 503)]
    with pytest.raises(FetchError, match="503"):
        fetch_source(SOURCE, tmp_path)
    assert "model.safetensors" not in {path.name for path in (tmp_path / "out").iterdir()}
    the_hub.seen.clear()
    assert fetch_source(SOURCE, tmp_path, name="again").files["model.safetensors"] == WEIGHTS
    assert [seen.range for seen in the_hub.seen if seen.server == "other"] == ["bytes=500000-"]


@pytest.mark.parametrize("left", [b"\0" * 1000, WEIGHTS + b"more", WEIGHTS[:-1] + b"x"])
def test_a_damaged_partial_file_is_thrown_away(the_hub: Hub, repo: Repo, tmp_path: Path, left: bytes) -> None:
    (tmp_path / "partial").mkdir()
    (tmp_path / "partial" / f"sha256-{hashlib.sha256(WEIGHTS).hexdigest()}.part").write_bytes(left)
    assert fetch_source(SOURCE, tmp_path).files["model.safetensors"] == WEIGHTS


def test_a_server_without_ranges(the_hub: Hub, repo: Repo, tmp_path: Path) -> None:
    the_hub.failures += [("", None), ("", None), ("drop", 1000), ("no-range", None)]
    fetched = fetch_source(SOURCE, tmp_path)
    assert fetched.files["model.safetensors"] == WEIGHTS
    assert fetched.reported[-1][0] == fetched.reported[-1][1]


def test_a_server_that_sends_another_range(the_hub: Hub, repo: Repo, tmp_path: Path) -> None:
    the_hub.failures += [("", None), ("", None), ("drop", 1000), ("wrong-range", None)]
    assert fetch_source(SOURCE, tmp_path).files["model.safetensors"] == WEIGHTS


@pytest.mark.parametrize("status", [429, 500, 503])
@pytest.mark.parametrize("retry_after", ["0", None, "Wed, 21 Oct 2015 07:28:00 GMT", "soon"])
def test_a_busy_server_is_asked_again(
    the_hub: Hub, repo: Repo, tmp_path: Path, status: int, retry_after: str | None
) -> None:
    the_hub.retry_after = retry_after
    the_hub.failures += [("status", status), ("status", status)]
    the_hub.api_failures += [status]
    assert fetch_source(SOURCE, tmp_path).files["model.safetensors"] == WEIGHTS


def test_a_server_that_stays_busy(the_hub: Hub, repo: Repo, tmp_path: Path) -> None:
    the_hub.api_failures += [503] * 3
    assert "answered 503 (3 attempts)" in error_of(tmp_path)


def test_an_unreachable_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert "cannot be reached" in error_of(tmp_path)


@pytest.mark.parametrize("file", ["model.safetensors", "config.json"])
def test_wrong_bytes_are_refused(the_hub: Hub, repo: Repo, tmp_path: Path, file: str) -> None:
    repo.announced[file] = ("a" * 64) if file in repo.large else ("a" * 40)
    with pytest.raises(FetchError, match="not what was promised") as caught:
        fetch_source(SOURCE, tmp_path)
    assert "aaaa" in str(caught.value)
    assert file not in {path.name for path in (tmp_path / "out").iterdir()}
    assert all(path.stat().st_size == 0 for path in (tmp_path / "partial").iterdir())


def test_a_file_of_another_size_is_refused(the_hub: Hub, repo: Repo, tmp_path: Path) -> None:
    lock = Lock()
    fetch_source(SOURCE, tmp_path, lock=lock)
    repo.files["config.json"] += b" " * 10
    with pytest.raises(FetchError, match="23 bytes were promised, there are more"):
        fetch_source(SOURCE, tmp_path, lock=lock, name="longer")
    repo.files["config.json"] = b"{}"
    with pytest.raises(FetchError, match="23 bytes were promised, there are 2"):
        fetch_source(SOURCE, tmp_path, lock=lock, name="shorter")


def test_files_without_a_digest_are_refused(repo: Repo, tmp_path: Path) -> None:
    repo.announced["config.json"] = ""
    assert "announces no digest for 'config.json'" in error_of(tmp_path)


def test_gated(the_hub: Hub, repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repo.gated = True
    assert "restricted" in error_of(tmp_path)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert fetch_source(SOURCE, tmp_path, name="allowed").files["model.safetensors"] == WEIGHTS


def test_a_refused_file(the_hub: Hub, repo: Repo, tmp_path: Path) -> None:
    the_hub.failures += [("status", 403)]
    message = error_of(tmp_path)
    assert "403" in message
    assert "accept the model's terms" in message


def test_the_token_goes_to_the_hub_only(
    the_hub: Hub, repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    the_hub.failures += [("", None), ("", None), ("drop", 1000)]
    fetched = fetch_source(SOURCE, tmp_path)
    to_hub = [seen.token for seen in the_hub.seen if seen.server == "hub"]
    to_other = [seen.token for seen in the_hub.seen if seen.server == "other"]
    assert to_hub and set(to_hub) == {f"Bearer {TOKEN}"}
    assert len(to_other) == 2 and set(to_other) == {None}
    said = "".join(capfd.readouterr()) + json.dumps([fetched.params, fetched.hints])
    assert TOKEN not in said


def test_a_redirect_back_to_the_hub_gets_no_token(
    the_hub: Hub, repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    the_hub.redirect = (
        f"{the_hub.url.replace('127.0.0.1', 'localhost')}/raw/org/model/resolve/{COMMIT}/model.safetensors"
    )
    assert fetch_source(SOURCE, tmp_path).files["model.safetensors"] == WEIGHTS
    assert [seen.token for seen in the_hub.seen if seen.path.startswith("/raw/")] == [None]


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x"])
def test_a_redirect_elsewhere_is_refused(the_hub: Hub, repo: Repo, tmp_path: Path, target: str) -> None:
    the_hub.redirect = target
    with pytest.raises(FetchError, match="it redirects from http to"):
        fetch_source(SOURCE, tmp_path)


def test_a_redirect_in_a_circle(the_hub: Hub, repo: Repo, tmp_path: Path) -> None:
    the_hub.redirect = f"{the_hub.url}/org/model/resolve/{COMMIT}/model.safetensors"
    with pytest.raises(FetchError, match="more than 10 redirects"):
        fetch_source(SOURCE, tmp_path)


def test_signatures_are_not_shown(the_hub: Hub, repo: Repo, tmp_path: Path) -> None:
    the_hub.failures += [("", None), ("", None), ("status", 404)]
    repo.files["generation_config.json"] = b"{}"
    with pytest.raises(FetchError) as caught:
        fetch_source(SOURCE, tmp_path)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"repo": "org/nothing", "revision": "main"}, "no such model, or it is private"),
        ({"repo": "org/model", "revision": "v9"}, "no such revision"),
        ({"repo": "org/model--x", "revision": "main"}, "is not a model of a hub"),
    ],
)
def test_what_is_not_there(repo: Repo, tmp_path: Path, spec: dict[str, str], said: str) -> None:
    assert said in error_of(tmp_path, Source("hf", spec))


def test_a_repository_without_a_model(repo: Repo, tmp_path: Path) -> None:
    repo.files = {"README.md": b"# hi"}
    assert "is not a checkpoint" in error_of(tmp_path)


def test_a_hub_that_names_no_commit(repo: Repo, tmp_path: Path) -> None:
    repo.commit = "main"
    assert "names no commit" in error_of(tmp_path)


def test_a_hub_that_names_another_commit(repo: Repo, tmp_path: Path) -> None:
    asked = "e" * 40
    repo.revisions.add(asked)
    assert "another commit than was asked for" in error_of(
        tmp_path, Source("hf", {"repo": "org/model", "revision": asked})
    )


def test_names_that_leave_the_folder_are_never_needed(repo: Repo, tmp_path: Path) -> None:
    repo.files["../../config.json"] = b"evil"
    repo.files["/abs/model.safetensors"] = b"evil"
    assert b"evil" not in fetch_source(SOURCE, tmp_path).files.values()


def test_the_plan_of_a_source_can_be_fetched_elsewhere(repo: Repo, tmp_path: Path) -> None:
    first = fetch_source(SOURCE, tmp_path)
    again = fetch_observed(first.params, {}, tmp_path, "again")
    assert again.files == first.files


@pytest.mark.parametrize("endpoint", ["http://mirror.invalid", "http://192.0.2.1:8080/hub", "http://127.0.0.1.invalid"])
def test_a_token_is_not_sent_in_clear_text_to_another_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, endpoint: str
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert "would go out in clear text" in error_of(tmp_path)
    pinned = {"size": 2, "sha256": hashlib.sha256(b"{}").hexdigest()}
    lock = Lock({"hf:org/model@main": {"commit": COMMIT, "files": {"config.json": pinned}}})
    with pytest.raises(FetchError, match="would go out in clear text"):
        fetch_source(SOURCE, tmp_path, lock=lock, name="pinned")


def test_no_token_goes_through_a_proxy_to_this_machine(
    the_hub: Hub, repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert fetch_source(SOURCE, tmp_path).files["model.safetensors"] == WEIGHTS


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://[::1",
        "https://host:port",
        "https://host:99999999",
        "hub",
        "file:///etc",
        "https://",
        "https://a/?b",
        "https://me:hunter2@host",
    ],
)
def test_an_address_of_a_hub_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    with pytest.raises(UsageError, match="HF_ENDPOINT is not the address of a hub"):
        fetch_source(SOURCE, tmp_path)


def test_a_token_that_no_header_can_hold_is_not_shown(
    the_hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", f"{TOKEN} {TOKEN}\u2026")
    assert "the token for the hub cannot be a token" in error_of(tmp_path)
    assert the_hub.seen == []


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"[" * 100_000, "nested too deeply"),
        (b"<html>", "Expecting value"),
        (b"\xff", "utf-8"),
        (b'{"siblings": 5}', "siblings is not a list"),
        (b'{"siblings": [{"rfilename": null}]}', "siblings[0].rfilename is not a name"),
    ],
)
def test_an_answer_that_is_not_understood(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: bytes, said: str
) -> None:
    with raw_server(response(answer)) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        message = error_of(tmp_path)
    assert "the hub's answer is not understood" in message
    assert said in message


def test_an_answer_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "MOST_BYTES", 1 << 16)
    with raw_server(endless(response(length=None), b" " * 4096)) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        assert "more than 65536 bytes" in error_of(tmp_path)


def test_an_answer_that_is_cut_off_is_asked_for_again(
    the_hub: Hub, repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with raw_server(response(b"{}", length="100"), response(b"{}", length="\u00b2"), response(b"{}")) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        assert "names no commit" in error_of(tmp_path)
        assert len(server.requests) == 3


@pytest.mark.parametrize("name", ["x\0.safetensors", "x" * 300 + ".safetensors"])
def test_a_needed_file_whose_name_no_file_can_have(repo: Repo, tmp_path: Path, name: str) -> None:
    del repo.files["model.safetensors"], repo.files["pytorch_model.bin"]
    repo.files[name] = b""
    assert "a file's name is" in error_of(tmp_path)


@pytest.mark.parametrize(
    ("field", "value"),
    [("size", -1), ("size", "651"), ("size", 1 << 70), ("blobId", "x"), ("lfs", {"sha256": "../x", "size": 2})],
)
def test_a_wrong_field_is_not_pinned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, field: str, value: object
) -> None:
    sibling = {"rfilename": "config.json", "size": 2, "blobId": "b" * 40, field: value}
    answer = json.dumps({"sha": COMMIT, "siblings": [sibling]}).encode()
    lock = Lock()
    with raw_server(response(answer)) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        with pytest.raises(FetchError, match=rf"siblings\[0\]\.{field}"):
            fetch_source(SOURCE, tmp_path, lock=lock)
    assert not lock.changed and not lock.sources


def test_a_client_that_does_not_like_the_environment(
    the_hub: Hub, repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: str) -> None:
        raise ValueError("invalid literal for int()")

    monkeypatch.setattr(hub, "import_module", refuse)
    with pytest.raises(UsageError, match="the client of the hub cannot be used"):
        fetch_source(SOURCE, tmp_path)


def test_a_login_that_has_ended(the_hub: Hub, repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refresh() -> str:
        raise RuntimeError("the login has ended")

    monkeypatch.setattr("huggingface_hub.utils.get_token", refresh)
    assert "RuntimeError: the login has ended" in error_of(tmp_path)
