"""GGUF files in parts, which gguf's own writer splits, against the same file in one."""

import shutil

import pytest

from llmbuild.errors import InputError
from llmbuild.models.open import infer_format, open_checkpoint, read_metadata
from tests.helpers.gguf_files import make_gguf, write_gguf_parts


@pytest.fixture
def whole(tmp_path):
    return make_gguf(tmp_path / "whole" / "model.gguf", "llama-gqa", quantization="Q8_0")


@pytest.fixture
def parts(tmp_path, whole):
    return split(whole, tmp_path / "parts")


def split(whole, directory, **options):
    """The parts of a GGUF file in a new directory."""
    write_gguf_parts(whole, directory / "Tiny.gguf", **options or {"split_max_tensors": 7})
    assert len(list(directory.glob("Tiny-*-of-*.gguf"))) > 2
    return directory


def contents(path):
    with open_checkpoint(path) as checkpoint:
        return (
            checkpoint.config,
            checkpoint.packed_by,
            {name: checkpoint.read(name).tobytes() for name in checkpoint.tensors},
            {name: [part.tobytes() for part in checkpoint.parts(name)] for name in checkpoint.tensors},
        )


@pytest.mark.parametrize(
    "options",
    [{"split_max_tensors": 2}, {"split_max_size": 150_000}, {"split_max_tensors": 9, "small_first_shard": True}],
)
def test_the_parts_read_as_the_whole(tmp_path, whole, options):
    directory = split(whole, tmp_path / "parts", **options)
    assert infer_format(directory) == "gguf"
    first, *_, last = sorted(directory.iterdir())
    assert contents(directory) == contents(first) == contents(last) == contents(whole)
    assert read_metadata(directory).tokenizer_files == read_metadata(whole).tokenizer_files
    assert read_metadata(directory).config == read_metadata(whole).config


def refused(path, message):
    for read in (open_checkpoint, read_metadata):
        with pytest.raises(InputError) as caught:
            read(path)
        assert message in str(caught.value)


def test_parts_that_are_not_all_there(parts):
    files = sorted(parts.iterdir())
    files[2].rename(parts / "third.gguf")
    refused(files[0], "a part of the split GGUF file is missing")
    shutil.copy(files[1], files[2])
    refused(files[0], f"the file is not part 3 of {len(files)} of the split GGUF file")
    (parts / "third.gguf").replace(files[2])
    alone = parts / "alone.gguf"
    files[0].rename(alone)
    refused(files[1], "one part of a split one")
    refused(alone, "the names that llama-gguf-split gave them")


def test_parts_of_another_file(tmp_path, parts, whole):
    files = sorted(parts.iterdir())
    other = sorted(
        split(make_gguf(tmp_path / "o" / "model.gguf", "qwen2"), tmp_path / "other", split_max_tensors=10).iterdir()
    )
    assert len(other) == len(files)
    shutil.copy(other[1], files[1])
    with pytest.raises(InputError, match=r"in two parts of the split GGUF file|do not belong together"):
        open_checkpoint(parts)


def test_parts_of_another_split_of_the_file(tmp_path, parts, whole):
    files = sorted(parts.iterdir())
    other = sorted(split(whole, tmp_path / "other", split_max_tensors=10).iterdir())
    assert len(other) == len(files)
    shutil.copy(other[-1], files[-1])
    with pytest.raises(InputError, match="do not belong together"):
        open_checkpoint(parts)
