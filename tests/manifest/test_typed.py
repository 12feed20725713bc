"""What may be typed for a checkpoint at `llmbuild init`: names and pages of the hub, and a directory that has one inside."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llmbuild.errors import UsageError
from llmbuild.manifest.starter import propose
from llmbuild.manifest.typed import as_source, checkpoint_in

HUB = "https://huggingface.co/"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("Qwen/Qwen3-0.6B", "hf:Qwen/Qwen3-0.6B"),
        ("Qwen/Qwen3-0.6B@v1", "hf:Qwen/Qwen3-0.6B@v1"),
        ("org/name/q4/file.gguf", "hf:org/name/q4/file.gguf"),
        (HUB + "org/name", "hf:org/name"),
        (HUB + "org/name/", "hf:org/name"),
        ("https://hf.co/org/name?library=transformers#usage", "hf:org/name"),
        (HUB + "org/name/tree/main", "hf:org/name"),
        (HUB + "org/name/tree/v1.2", "hf:org/name@v1.2"),
        (HUB + "org/name/tree/refs%2Fpr%2F3", "hf:org/name@refs/pr/3"),
        (HUB + "org/name/tree/refs/pr/3", "hf:org/name@refs/pr/3"),
        (HUB + "org/name/blob/v1/model.Q4.gguf", "hf:org/name/model.Q4.gguf@v1"),
        (HUB + "org/name/resolve/main/a/b.gguf?download=true", "hf:org/name/a/b.gguf"),
        (HUB + "org/name/blob/main/config.json", "hf:org/name"),
        (HUB + "org/name/commit/abcdef0", "hf:org/name@abcdef0"),
        (HUB + "org/name/commits/v1", "hf:org/name@v1"),
        (HUB + "org/name/blame/v1/config.json", "hf:org/name@v1"),
        (HUB + "org/name/discussions/4", "hf:org/name"),
        ("huggingface.co/org/name", "hf:org/name"),
        ("hf.co/org/name/tree/v1", "hf:org/name@v1"),
        # Not for the hub.
        ("hf:org/name", "hf:org/name"),
        ("gemma-2b", "gemma-2b"),
        ("/org/name", "/org/name"),
        ("../org/name", "../org/name"),
        ("https://example.org/org/name.gguf", "https://example.org/org/name.gguf"),
        ("pypi:name==1.0/a.gguf", "pypi:name==1.0/a.gguf"),
    ],
)
def test_what_is_typed_and_what_the_manifest_says(text: str, source: str) -> None:
    assert as_source(text) == source


def test_a_file_with_its_sha256_stays_an_address() -> None:
    url = HUB + "org/name/resolve/main/a.gguf"
    assert as_source(url, sha256="0" * 64) == url


@pytest.mark.parametrize("page", ["", "org", "datasets/org/name", "spaces/org/name"])
def test_a_page_that_shows_no_model(page: str) -> None:
    with pytest.raises(UsageError, match="not the page of a model"):
        as_source(HUB + page)


def test_a_folder_of_a_repository_is_no_checkpoint() -> None:
    with pytest.raises(UsageError, match="no folder"):
        as_source(HUB + "org/name/tree/main/onnx")


def test_a_misspelt_directory_is_not_taken_for_the_hubs() -> None:
    Path("models/SmolLM2").mkdir(parents=True)
    with pytest.raises(UsageError, match="no such file") as caught:
        as_source("models/SmolLM")
    assert caught.value.why == "did you mean 'SmolLM2'?"
    assert caught.value.fix is not None and "hf:models/SmolLM for the hub's" in caught.value.fix


def test_a_proposal_of_a_page() -> None:
    starter = propose(HUB + "Qwen/Qwen3-0.6B/tree/v2", Path.cwd())
    assert (starter.source, starter.name) == ("hf:Qwen/Qwen3-0.6B@v2", "Qwen3-0.6B")


def checkpoint(path: Path) -> Path:
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    return path


def test_the_checkpoint_in_a_directory(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no checkpoint in this directory"):
        checkpoint_in(tmp_path)
    one = checkpoint(tmp_path / "models" / "one")
    # Results, and what is hidden, are none.
    checkpoint(tmp_path / "dist" / "one-q4f16_1-MLC")
    checkpoint(tmp_path / ".cache" / "two")
    assert checkpoint_in(tmp_path) == one
    (tmp_path / "two.gguf").touch()
    with pytest.raises(UsageError, match="there are several checkpoints in this directory") as caught:
        checkpoint_in(tmp_path)
    assert caught.value.why is not None and "two.gguf" in caught.value.why
    (tmp_path / "config.json").touch()
    assert checkpoint_in(tmp_path) == tmp_path
