"""Publishing at a hub: one commit with what differs, and clear errors."""

from __future__ import annotations

import hashlib
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from llmbuild.errors import FetchError, LlmbuildError, StoreError, UsageError
from llmbuild.publishing.kind import Difference, File, Wishes
from llmbuild.publishing.kinds import split
from tests.helpers.publishing import FACTS, Counted, publication, publish
from tests.helpers.upload_hub import Repo, UploadHub

TO = "hf:org/tiny"


def names(difference: Difference) -> tuple[int, tuple[str, ...], tuple[str, ...], int]:
    return len(difference.new), difference.changed, difference.removed, len(difference.same)


def test_a_second_publication_makes_no_commit(hub: UploadHub, files: Path, tmp_path: Path) -> None:
    difference, reference = publish(TO, files, tmp_path)
    branch = hub.repos["org/tiny"].branches["main"]
    assert names(difference) == (10, (), (), 0)
    assert difference.size == sum(file.size for file in publication(files).files)
    assert reference == f"hf:org/tiny@{branch.commit}"
    assert branch.messages[0].startswith("Publish tiny q4f16_1 (llmbuild ")
    assert {"params_shard_1.bin", "tokenizer.json"} <= branch.large
    assert {"README.md", ".gitattributes"} & branch.large == set()

    hub.requests.clear()
    difference, again = publish(TO, files, tmp_path)
    assert (names(difference), again) == ((0, (), (), 10), reference)
    assert {one.method for one in hub.requests} == {"GET"}


def test_only_what_changed_is_sent(hub: UploadHub, files: Path, tmp_path: Path) -> None:
    publish(TO, files, tmp_path)
    branch = hub.repos["org/tiny"].branches["main"]
    branch.files["notes.md"] = b"somebody's own file"
    stored = list(hub.stored)
    (files / "mlc-chat-config.json").write_bytes(b"{}" * 100)
    (files / "README.md").write_bytes(b"---\nlibrary_name: mlc-llm\n---\nother\n")
    (files / "params_shard_2.bin").unlink()
    (files / "params_shard_3.bin").write_bytes(b"new " * 100)
    difference, _ = publish(TO, files, tmp_path)
    assert difference.new == ("params_shard_3.bin",)
    assert difference.changed == ("README.md", "SHA256SUMS", "mlc-chat-config.json")
    assert difference.removed == ("params_shard_2.bin",)
    digests = {file.name: file.digest for file in publication(files).files}
    assert sorted(hub.stored[len(stored) :]) == sorted(
        digests[name] for name in ("params_shard_3.bin", "SHA256SUMS", "mlc-chat-config.json")
    )
    assert branch.files.keys() == {*digests, "notes.md", ".gitattributes"}
    assert len(branch.messages) == 2


def test_one_content_is_sent_once(hub: UploadHub, files: Path, tmp_path: Path) -> None:
    """A model directory has its index of weights under two names."""
    (files / "again.bin").write_bytes((files / "params_shard_1.bin").read_bytes())
    publish(TO, files, tmp_path)
    sent = [one.path for one in hub.requests if one.method == "PUT"]
    assert sent and len(set(hub.stored)) == len(hub.stored)
    branch = hub.repos["org/tiny"].branches["main"]
    assert branch.files["again.bin"] == branch.files["params_shard_1.bin"]
    assert {"again.bin", "params_shard_1.bin"} <= branch.large


@pytest.mark.parametrize("status", [200, 503])
def test_what_was_sent_is_counted_once(
    hub: UploadHub, files: Path, tmp_path: Path, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _seconds: None)
    kind, place = split(TO)
    what, sent, destination = publication(files), Counted(), kind.open(place, Wishes(), tmp_path)
    difference = destination.compare(what)
    if status != 200:
        # The client sends an object again when the store has no time.
        hub.once["/storage/"] = (status, b"")
    destination.send(what, difference, sent)
    assert hub.once == {}
    # The card is in the commit itself.
    assert sent.total == sum(file.size for file in what.files if file.name != "README.md")
    assert min(sent.sizes) > 0
    assert len(sent.sizes) > len(hub.stored), "a file of several parts has several"


def test_the_list_of_digests_is_what_sha256sum_reads(hub: UploadHub, files: Path, tmp_path: Path) -> None:
    publish(TO, files, tmp_path)
    clone = tmp_path / "clone"
    for name, data in hub.repos["org/tiny"].branches["main"].files.items():
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        (clone / name).write_bytes(data)
    assert (
        subprocess.run(["sha256sum", "--quiet", "-c", "SHA256SUMS"], cwd=clone, check=True, capture_output=True).stdout
        == b""
    )
    (clone / "tokenizer.json").write_bytes(b"")
    assert (
        subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=clone, check=False, capture_output=True).returncode == 1
    )


def test_a_look_sends_nothing(hub: UploadHub, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "")
    kind, place = split(TO)
    difference = kind.open(place, Wishes(), tmp_path).compare(publication(files))
    assert len(difference.new) == 10
    assert {one.method for one in hub.requests} == {"GET"}


def test_a_wrong_token(hub: UploadHub, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    text = refused(hub, files, tmp_path, FetchError)
    assert "does not let you publish here" in text
    assert "hf_wrong" not in text


@pytest.mark.parametrize("private", [True, False])
def test_who_can_see_a_repository(hub: UploadHub, files: Path, tmp_path: Path, private: bool) -> None:
    publish(TO, files, tmp_path, Wishes(private=private))
    assert hub.repos["org/tiny"].private is private
    publish(TO, files, tmp_path, Wishes(private=private))
    hub.requests.clear()
    with pytest.raises(UsageError, match="was to be"):
        publish(TO, files, tmp_path, Wishes(private=not private))
    assert {one.method for one in hub.requests} == {"GET"}


def test_a_branch(hub: UploadHub, files: Path, tmp_path: Path) -> None:
    hub.repos["org/tiny"] = Repo()
    _, reference = publish(TO, files, tmp_path, Wishes(revision="next"))
    branches = hub.repos["org/tiny"].branches
    assert reference.endswith(branches["next"].commit)
    assert list(branches["main"].files) == [".gitattributes"]
    assert len(branches["next"].files) == 11


def test_the_token_goes_to_the_hub_alone(hub: UploadHub, files: Path, tmp_path: Path) -> None:
    publish(TO, files, tmp_path)
    assert {one.token for one in hub.requests if "/storage/" in one.path} == {None}
    assert hub.token in {one.token for one in hub.requests}


def refused(hub: UploadHub, files: Path, tmp_path: Path, expected: type[LlmbuildError]) -> str:
    with pytest.raises(expected) as found:
        publish(TO, files, tmp_path)
    return str(found.value)


def test_without_a_token(hub: UploadHub, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    assert "HF_TOKEN is not set" in refused(hub, files, tmp_path, UsageError)


def test_a_token_is_not_sent_in_clear_text(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    monkeypatch.setenv("HF_ENDPOINT", "http://hub.example")
    with pytest.raises(UsageError, match="a token is not sent in clear text"):
        publish(TO, files, tmp_path)


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/revision/", 401, "does not let you publish here"),
        ("/commit/", 403, "does not let you publish here"),
        ("/preupload/", 400, "publishing to the hub failed\n  why: it answered 400"),
        ("/storage/", 403, "does not let you publish here"),
        ("/commit/", 412, "somebody else published here meanwhile"),
    ],
)
def test_what_a_hub_refuses(hub: UploadHub, files: Path, tmp_path: Path, path: str, status: int, said: str) -> None:
    hub.answers[path] = (status, b"{}")
    text = refused(hub, files, tmp_path, FetchError)
    assert said in text
    assert "X-Amz" not in text


def test_a_hub_that_is_not_there(hub: UploadHub, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setenv("HF_ENDPOINT", url)
    text = refused(hub, files, tmp_path, FetchError)
    assert "the hub cannot be reached" in text
    assert f"why: {url}: ConnectError" in text


@pytest.mark.parametrize("token", ["two words", "hf_x\ny", "hf_é"])
def test_what_is_no_token(
    hub: UploadHub, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    text = refused(hub, files, tmp_path, UsageError)
    assert "the token for the hub cannot be a token\n  why: it is not one word of printable ASCII characters\n" in text
    assert "fix: set HF_TOKEN to the token alone" in text
    assert "log in" not in text
    assert token not in text


def test_a_commit_that_came_between(hub: UploadHub, files: Path, tmp_path: Path) -> None:
    publish(TO, files, tmp_path)
    (files / "tokenizer.json").write_bytes(b"x" * 100)
    kind, place = split(TO)
    destination, what = kind.open(place, Wishes(), tmp_path), publication(files)
    difference = destination.compare(what)
    hub.repos["org/tiny"].branches["main"].commit = "f" * 40
    with pytest.raises(FetchError, match="somebody else published here meanwhile"):
        destination.send(what, difference, lambda _size: None)


def test_a_head_of_the_card_that_the_hub_refuses(hub: UploadHub, files: Path, tmp_path: Path) -> None:
    (files / "README.md").write_text('---\nlicense: "wrong"\n---\n')
    assert "license is none" in refused(hub, files, tmp_path, FetchError)


@pytest.mark.parametrize(
    "change", [lambda path: path.write_bytes(b"other"), lambda path: path.unlink()], ids=["changed", "gone"]
)
def test_a_result_that_changes_meanwhile(
    hub: UploadHub, files: Path, tmp_path: Path, change: Callable[[Path], None]
) -> None:
    what = publication(files)
    kind, place = split(TO)
    destination = kind.open(place, Wishes(), tmp_path)
    difference = destination.compare(what)
    change(files / "tokenizer.json")
    with pytest.raises(StoreError):
        destination.send(what, difference, lambda _size: None)
    assert hub.repos.get("org/tiny", Repo()).branches["main"].messages == []


@pytest.mark.parametrize(
    "place", ["org", "org/a/b", "org/..", "-org/x", "org/a--b", "org/" + "a" * 100, "org/{x}", "org/a\n"]
)
def test_what_is_no_repository(place: str) -> None:
    with pytest.raises(UsageError, match="is not the name of a repository"):
        split(TO)[0].check(place)


@pytest.mark.parametrize("text", ["org/name", "ftp:org/name", "hub:x", "__init__:x", ""])
def test_what_is_no_destination(text: str) -> None:
    with pytest.raises(UsageError, match="is not a destination"):
        split(text)


def test_the_content_of_a_file(tmp_path: Path) -> None:
    file = File.of_bytes("x", "config", b"content")
    assert (file.digest, file.whole(), file.part(3, 2)) == (hashlib.sha256(b"content").hexdigest(), b"content", b"te")
    assert FACTS.license == "apache-2.0"
