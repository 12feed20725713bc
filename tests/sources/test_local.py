"""Directories and GGUF files on this machine, and which files of a checkpoint are needed."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from llmbuild.errors import FetchError, InputError, StoreError
from llmbuild.manifest.lock import Lock
from llmbuild.sources import observe, size
from llmbuild.sources.kind import Source
from llmbuild.sources.select import needed_files
from tests.helpers.fetching import Digests, fetch_observed, fetch_source


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    directory = tmp_path / "models" / "tiny"
    directory.mkdir(parents=True)
    for name in ("config.json", "tokenizer.json", "model.safetensors", "pytorch_model.bin", "notes.txt"):
        (directory / name).write_text(name)
    (directory / "sub").mkdir()
    (directory / "sub" / "tokenizer.model").write_text("deeper")
    return directory


SHARDED = [
    "config.json",
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
    "model.safetensors.index.json",
]
SOURCE = Source("path", {"path": "models/tiny"})


def test_the_size_is_that_of_the_needed_files(tmp_path: Path, checkpoint: Path) -> None:
    params, hints = observe(SOURCE, tmp_path, Digests(), Lock())
    assert size(params, hints) == sum(map(len, ("config.json", "tokenizer.json", "model.safetensors")))
    (tmp_path / "x.gguf").write_bytes(b"GGUF")
    assert size(*observe(Source("gguf", {"path": "x.gguf"}), tmp_path, Digests(), Lock())) == 4
    (checkpoint / "config.json").unlink()
    assert size(params, hints) is None


def test_a_directory(tmp_path: Path, checkpoint: Path) -> None:
    fetched = fetch_source(SOURCE, tmp_path)
    assert fetched.files == {name: name.encode() for name in ("config.json", "tokenizer.json", "model.safetensors")}
    assert fetched.params["files"]["config.json"] == hashlib.sha256(b"config.json").hexdigest()
    assert fetched.params["source"] == {"kind": "path"}
    assert fetched.hints == {"path": str(checkpoint)}
    assert fetched.reported[-1] == (42, 42, "bytes")


def test_the_key_holds_contents_and_no_path(tmp_path: Path, checkpoint: Path) -> None:
    first = fetch_source(SOURCE, tmp_path)
    checkpoint.rename(tmp_path / "moved")
    assert fetch_source(Source("path", {"path": "moved"}), tmp_path, name="again").params == first.params


def test_links_are_followed(tmp_path: Path, checkpoint: Path) -> None:
    target = tmp_path / "blob"
    (checkpoint / "config.json").rename(target)
    (checkpoint / "config.json").symlink_to(target)
    assert fetch_source(SOURCE, tmp_path).files["config.json"] == b"config.json"
    assert not (tmp_path / "out" / "config.json").is_symlink()


def test_a_gguf_file_and_its_name(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(b"GGUF")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "B.GGUF").write_bytes(b"GGUF")
    first = fetch_source(Source("gguf", {"path": "a.gguf"}), tmp_path)
    second = fetch_source(Source("path", {"path": "folder"}), tmp_path, name="folder-out")
    assert first.files == second.files == {"model.gguf": b"GGUF"}
    assert first.params == second.params


def test_a_file_that_changes_after_planning(tmp_path: Path, checkpoint: Path) -> None:
    planned = fetch_source(SOURCE, tmp_path)
    (checkpoint / "model.safetensors").write_text("other")
    with pytest.raises(FetchError, match="changed while the build was running"):
        fetch_observed(planned.params, planned.hints, tmp_path, "later")
    (checkpoint / "model.safetensors").unlink()
    with pytest.raises(FetchError, match="cannot be read"):
        fetch_observed(planned.params, planned.hints, tmp_path, "gone")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (Source("path", {"path": "models/tinny"}), "did you mean 'tiny'"),
        (Source("path", {"path": "models/tiny/config.json"}), "it is not a directory"),
        (Source("gguf", {"path": "models/tiny"}), "it is not a file"),
        (Source("gguf", {"path": "nowhere/x.gguf"}), "no such file"),
        (Source("path", {"path": "models"}), "neither config.json nor a .gguf file"),
    ],
)
def test_what_is_not_there(tmp_path: Path, checkpoint: Path, source: Source, said: str) -> None:
    with pytest.raises((FetchError, InputError)) as caught:
        fetch_source(source, tmp_path)
    assert said in str(caught.value)
    # What is of another kind is not what was meant.
    assert f"did you mean '{Path(source.spec['path']).name}'" not in str(caught.value)


def test_a_full_disk(tmp_path: Path, checkpoint: Path) -> None:
    planned = fetch_source(SOURCE, tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "config.json").symlink_to("/dev/full")
    from llmbuild.sources import fetch

    with pytest.raises(StoreError, match="No space left"):
        fetch(planned.params, planned.hints, tmp_path / "full", tmp_path, lambda done, total, unit="": None)


@pytest.mark.parametrize(
    ("names", "source_format", "expected"),
    [
        (["config.json", "model.safetensors", "consolidated.safetensors"], None, ["config.json", "model.safetensors"]),
        (
            [*SHARDED, "model.fp16.safetensors"],
            None,
            SHARDED,
        ),
        (["config.json", "weights.safetensors", "pytorch_model.bin"], None, ["config.json", "weights.safetensors"]),
        (["config.json", "pytorch_model.bin", "training_args.bin"], None, ["config.json", "pytorch_model.bin"]),
        (["config.json", "a.safetensors", "b.bin"], "huggingface-torch", ["b.bin", "config.json"]),
        (["config.json", "model.safetensors", "x.gguf"], "gguf", ["x.gguf"]),
        (["config.json", "model.safetensors"], "awq", ["config.json", "model.safetensors"]),
        (["config.json"], None, ["config.json"]),
        (
            ["adapter_config.json", "adapter_model.safetensors"],
            None,
            ["adapter_config.json", "adapter_model.safetensors"],
        ),
    ],
)
def test_needed_files(names: list[str], source_format: str | None, expected: list[str]) -> None:
    assert needed_files(names, source_format, "here") == expected


def test_several_gguf_files() -> None:
    with pytest.raises(FetchError, match=r"a.gguf, b.gguf"):
        needed_files(["a.gguf", "b.gguf"], None, "here")


def test_a_name_that_is_not_utf_8(tmp_path: Path, checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").unlink()
    with open(os.fsencode(checkpoint) + b"/y\xff.safetensors", "w"):  # noqa: PTH123
        pass
    with pytest.raises(InputError, match="a name that cannot be kept") as caught:
        fetch_source(SOURCE, tmp_path)
    assert r"b'y\xff.safetensors' is not UTF-8" in str(caught.value)


@pytest.mark.parametrize("name", ["x" * 300, "x" * 5000, "x" * 300 + ".gguf"])
def test_a_path_that_no_file_can_have(tmp_path: Path, name: str) -> None:
    with pytest.raises(FetchError, match="cannot be read") as caught:
        fetch_source(Source("gguf" if "." in name else "path", {"path": name}), tmp_path)
    assert "too long" in str(caught.value)
