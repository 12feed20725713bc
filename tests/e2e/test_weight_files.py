"""Builds of checkpoints whose files have other names: the same bytes as those of the usual ones, and what a user reads."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.helpers.checkpoints import cached_checkpoint
from tests.helpers.cli import TINY_MANIFEST, ProjectDir, make_project
from tests.helpers.gguf_files import make_gguf, write_gguf_parts

WANTED = ("quantize[*]", "config[*]")


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> ProjectDir:
    """A build of the whole file, whose store the others use: what has the same content does not run again."""
    project = make_project(tmp_path_factory.mktemp("usual"), checkpoint=cached_checkpoint("llama-tied"))
    project.build(*WANTED)
    return project


def test_shards_of_other_names(tmp_path: Path, usual: ProjectDir) -> None:
    from safetensors.numpy import load_file, save_file

    project = make_project(tmp_path, checkpoint=usual.root / "checkpoint")
    directory = project.root / "checkpoint"
    tensors = load_file(directory / "model.safetensors")
    (directory / "model.safetensors").unlink()
    # The order of the records is that of the files.
    names, half = sorted(tensors), len(tensors) // 2
    parts = {"weights-b.safetensors": names[:half], "a (rest).safetensors": names[half:]}
    weight_map = {name: file for file, some in parts.items() for name in some}
    for file, some in parts.items():
        save_file({name: tensors[name] for name in some}, directory / file)
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (directory / "pytorch_model.bin").write_bytes(b"old")
    result = project.run("build", *WANTED)
    assert result.code == 0, result.text
    assert project.snapshot() == usual.snapshot()
    assert "pytorch_model.bin is not read, since safetensors come first" in " ".join(result.text.split())
    (directory / "weights-b.safetensors").unlink()
    result = project.run("build", *WANTED)
    assert result.code == 3
    assert "shard weights-b.safetensors is missing" in " ".join(result.text.split())


@pytest.mark.parametrize("named", ["checkpoint/x-00002-of-00003.gguf", "checkpoint"])
def test_a_gguf_file_in_parts(tmp_path: Path, named: str) -> None:
    whole = make_gguf(tmp_path / "project" / "whole.gguf", "llama-tied")
    project = ProjectDir(tmp_path / "project", tmp_path / "store")
    project.write(TINY_MANIFEST.replace('"checkpoint"', '"whole.gguf"'))
    project.build(*WANTED)
    built = project.snapshot()
    write_gguf_parts(whole, project.root / "checkpoint" / "x.gguf", split_max_tensors=8)
    shutil.rmtree(project.root / "dist")
    project.write(TINY_MANIFEST.replace('"checkpoint"', f'"{named}"'))
    assert project.build(*WANTED)["quantize"] == 1
    assert project.snapshot() == built


def test_names_of_a_wrapper_and_what_is_missing_then(tmp_path: Path, usual: ProjectDir) -> None:
    from safetensors.numpy import load_file, save_file

    project = make_project(tmp_path, checkpoint=usual.root / "checkpoint")
    path = project.root / "checkpoint" / "model.safetensors"
    tensors = {f"module.{name}": value for name, value in load_file(path).items()}
    save_file(tensors, path)
    result = project.run("build", *WANTED)
    assert result.code == 0, result.text
    assert project.snapshot() == usual.snapshot()
    assert "tensors are read under the names that the model has for them" in " ".join(result.text.split())
    save_file({f"net.{number}": value for number, value in enumerate(tensors.values())}, path)
    result = project.run("build", *WANTED)
    assert result.code == 3
    assert "tensors that the architecture needs is there" in " ".join(result.text.split())
    assert len(result.text.splitlines()) < 30
