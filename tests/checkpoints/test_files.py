"""git-lfs pointers, which a clone without git-lfs leaves in the place of large files, wherever a file is read."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from llmbuild.checkpoints.files import WeightFile, read_bounded, read_json
from llmbuild.checkpoints.huggingface import read_generation_config
from llmbuild.checkpoints.lora import MergedCheckpoint, Pair
from llmbuild.checkpoints.pointer import POINTER_BYTES
from llmbuild.errors import InputError
from llmbuild.models.open import open_checkpoint, read_metadata
from tests.helpers.checkpoints import cached_checkpoint

POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize 269060552\n"


def refused(path: Path, call) -> None:
    with pytest.raises(InputError) as caught:
        call()
    assert str(caught.value) == (
        f"{path}: is a git-lfs pointer\n"
        "  why: the file itself, of 269060552 bytes, is not there\n"
        "  fix: run `git lfs pull` in the repository that it is from"
    )


@pytest.mark.parametrize(
    ("file", "options"),
    [
        ("config.json", {}),
        ("model.safetensors", {}),
        ("model-00001-of-00002.safetensors", {"shards": 2}),
        ("model.safetensors.index.json", {"shards": 2}),
        ("pytorch_model.bin", {"format": "bin"}),
        ("pytorch_model.bin.index.json", {"format": "bin", "shards": 2}),
    ],
)
def test_every_file_of_a_checkpoint(tmp_path: Path, file: str, options: dict) -> None:
    directory = shutil.copytree(cached_checkpoint("llama", **options), tmp_path / "checkpoint")
    (directory / file).write_text(POINTER)
    refused(directory / file, lambda: open_checkpoint(directory))


@pytest.mark.parametrize("file", ["tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json"])
def test_files_of_a_tokenizer(tmp_path: Path, file: str) -> None:
    directory = shutil.copytree(cached_checkpoint("llama"), tmp_path / "checkpoint")
    (directory / file).write_text(POINTER)
    refused(directory / file, lambda: read_metadata(directory).tokenizer_file(file))


PAIR = Pair("model.embed_tokens.weight", "lm_head.weight", tied=False)


def test_a_gguf_file_a_generation_configuration_and_an_adapter(tmp_path: Path) -> None:
    for name in ("model.gguf", "generation_config.json", "adapter_config.json"):
        (tmp_path / name).write_text(POINTER)
    refused(tmp_path / "model.gguf", lambda: open_checkpoint(tmp_path / "model.gguf"))
    refused(tmp_path / "model.gguf", lambda: read_metadata(tmp_path / "model.gguf"))
    refused(tmp_path / "generation_config.json", lambda: read_generation_config(tmp_path))
    with open_checkpoint(cached_checkpoint("llama")) as base:
        refused(tmp_path / "adapter_config.json", lambda: MergedCheckpoint(base, tmp_path, PAIR))


def test_what_only_begins_like_one_is_read(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text(POINTER + "x" * POINTER_BYTES)
    assert read_bounded(path, "notes.txt").startswith(b"version")
    assert WeightFile(path).read_bytes(0, 7) == b"version"
    path.write_text('{"version": 1}')
    assert read_json(path, "notes.txt") == {"version": 1}


def test_a_pointer_without_a_size(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(POINTER.split("\noid", maxsplit=1)[0])
    with pytest.raises(InputError, match="the file itself is not there"):
        read_json(path, "config.json")
