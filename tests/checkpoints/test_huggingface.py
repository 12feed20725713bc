"""Whole and sharded Hugging Face checkpoints through `open_checkpoint`, against safetensors and torch themselves."""

import contextlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from llmbuild.errors import InputError, LlmbuildError, UsageError
from llmbuild.models.open import infer_format, open_checkpoint, read_metadata
from tests.helpers.checkpoints import cached_checkpoint, reference_model, write_tokenizer
from tests.helpers.replaced_parts import mutations


def expected(directory):
    """The tensors by torch's and safetensors' own readers, as float32."""
    import torch
    from safetensors.torch import load_file

    tensors = {}
    for path in sorted(directory.glob("*.safetensors")):
        tensors.update(load_file(path))
    for path in sorted(directory.glob("*.bin")):
        tensors.update(torch.load(path, weights_only=True))
    return tensors


@pytest.fixture
def copy(tmp_path):
    def make(variant="llama", **arguments):
        return shutil.copytree(cached_checkpoint(variant, **arguments), tmp_path / "checkpoint")

    return make


@pytest.mark.parametrize("format", ["safetensors", "bin"])
@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_reads_what_the_official_readers_read(format, shards, dtype):
    directory = cached_checkpoint("gpt_neox", format=format, shards=shards, dtype=dtype)
    reference = expected(directory)
    with open_checkpoint(directory) as checkpoint:
        assert checkpoint.format == {"safetensors": "huggingface-safetensor", "bin": "huggingface-torch"}[format]
        assert checkpoint.config["model_type"] == "gpt_neox"
        assert checkpoint.generation_config["temperature"] == 0.7
        assert set(checkpoint.tensors) == set(reference)
        for name, info in checkpoint.tensors.items():
            value, wanted = checkpoint.read(name), reference[name]
            assert value.shape == info.shape == tuple(wanted.shape)
            assert value.nbytes == info.nbytes
            assert str(value.dtype) == info.dtype == str(wanted.dtype).removeprefix("torch.")
            assert value.astype(np.float32).tobytes() == wanted.float().numpy().tobytes()


def test_a_single_file_keeps_the_order_of_its_header(copy):
    directory = copy("gpt_neox", dtype="float16")
    data = (directory / "model.safetensors").read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    header.pop("__metadata__")
    with open_checkpoint(directory) as checkpoint:
        assert list(checkpoint.tensors) == list(header)


def test_shards_come_in_the_order_in_which_the_index_first_names_them(copy):
    directory = copy("llama", shards=3)
    path = directory / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    reversed_map = dict(reversed(index["weight_map"].items()))
    path.write_text(json.dumps({"weight_map": reversed_map}))
    files = list(dict.fromkeys(reversed_map.values()))
    wanted = [name for file in files for name, place in reversed_map.items() if place == file]
    with open_checkpoint(directory) as checkpoint:
        assert list(checkpoint.tensors) == wanted


def test_safetensors_are_preferred_and_a_format_can_be_forced(copy):
    directory = copy("llama")
    shutil.copy(cached_checkpoint("llama", format="bin") / "pytorch_model.bin", directory)
    assert infer_format(directory) == infer_format(directory, "auto") == "huggingface-safetensor"
    with open_checkpoint(directory, "huggingface-torch") as checkpoint:
        assert checkpoint.format == "huggingface-torch"
    with pytest.raises(InputError, match="there is no GGUF file"):
        open_checkpoint(directory, "gguf")
    with pytest.raises(UsageError, match="unknown source-format 'safetensors'"):
        open_checkpoint(directory, "safetensors")


def test_metadata_needs_no_weights(tmp_path):
    source = cached_checkpoint("mistral")
    for name in ("config.json", "generation_config.json"):
        shutil.copy(source / name, tmp_path)
    write_tokenizer(tmp_path, "sentencepiece")
    metadata = read_metadata(tmp_path)
    assert metadata.config["sliding_window"] == 32
    assert metadata.generation_config["top_p"] == 0.9
    assert list(metadata.tokenizer_files) == ["tokenizer.json", "tokenizer_config.json"]
    assert metadata.tokenizer_file("tokenizer.json") == (tmp_path / "tokenizer.json").read_bytes()
    assert metadata.tokenizer_file("vocab.json") is None
    with pytest.raises(InputError, match=r"no weights found[^!]*config.json, generation_config.json"):
        open_checkpoint(tmp_path)


def remove_shard(directory):
    (directory / "model-00002-of-00003.safetensors").unlink()


def promise_too_much(directory):
    edit_index(
        directory, lambda index: index["weight_map"].update({"model.norm.wait": "model-00003-of-00003.safetensors"})
    )


def leave_the_directory(directory):
    edit_index(directory, lambda index: index["weight_map"].update({"x": "../other.safetensors"}))


def empty_map(directory):
    edit_index(directory, lambda index: index.update(weight_map={}))


@pytest.mark.parametrize("format", ["safetensors", "bin"])
def test_what_the_index_does_not_name_counts_as_in_transformers(copy, format):
    import torch
    from safetensors.torch import load_file, save_file

    directory = copy("llama-tied", format=format, shards=3)
    shards = sorted(directory.glob(f"*-of-00003.{format}"))
    random = torch.Generator().manual_seed(4)
    # A head that the index passes over unties the model, and of two norms the one in the last shard counts.
    added = [
        {"lm_head.weight": torch.randn(320, 128, generator=random)},
        {"model.norm.weight": torch.randn(128, generator=random)},
        {"model.norm.weight": torch.randn(128, generator=random)},
    ]
    for shard, tensors in zip(shards, added, strict=True):
        if format == "bin":
            torch.save(torch.load(shard, weights_only=True) | tensors, shard)
        else:
            save_file(load_file(shard) | tensors, shard, metadata={"format": "pt"})
    (index,) = directory.glob("*.index.json")
    for shard in shards[1:]:
        named = json.loads(index.read_text())
        named["weight_map"]["model.norm.weight"] = shard.name
        index.write_text(json.dumps(named))
        reference = reference_model(directory).state_dict()
        with open_checkpoint(directory) as checkpoint:
            assert set(checkpoint.tensors) == set(reference)
            for name in ("lm_head.weight", "model.norm.weight", "model.embed_tokens.weight"):
                assert np.array_equal(checkpoint.read(name), reference[name].numpy()), name


def edit_index(directory, change):
    path = directory / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    change(index)
    path.write_text(json.dumps(index))


def name_a_shard(name):
    def change(directory):
        edit_index(directory, lambda index: index["weight_map"].update({"model.norm.weight": name}))

    return change


BROKEN = {
    "missing shard": (remove_shard, "shard model-00002-of-00003.safetensors is missing"),
    "tensor not in its shard": (promise_too_much, "lacks tensor 'model.norm.wait'"),
    "shard outside": (leave_the_directory, "a shard is a file in the same directory"),
    "empty map": (empty_map, "no weight_map"),
    "index not json": (lambda d: (d / "model.safetensors.index.json").write_text("{"), "not valid JSON"),
    "shard of half a character": (name_a_shard("\ud800"), "half of a surrogate pair"),
    "shard of a long name": (name_a_shard("s" * 5000), "a shard is a file in the same directory"),
    "shard that ends a text": (name_a_shard("x\0y"), "a shard is a file in the same directory"),
    "config of half a character": (
        lambda d: (d / "config.json").write_text('{"model_type": "\\ud800"}'),
        "half of a surrogate pair",
    ),
    "config of digits": (lambda d: (d / "config.json").write_text('{"a": ' + "9" * 5000 + "}"), "has 5000 digits"),
    "no config": (lambda d: (d / "config.json").unlink(), "no config.json"),
    "config not json": (lambda d: (d / "config.json").write_text("{'a': 1}"), "config.json is not valid JSON"),
    "config not an object": (lambda d: (d / "config.json").write_text("[1]"), "config.json is not a JSON object"),
    "config not text": (lambda d: (d / "config.json").write_bytes(b"\xff\xfe{}"), "config.json is not UTF-8"),
    "config too deep": (lambda d: (d / "config.json").write_text("[" * 200_000), "nested too deeply"),
    "generation config not json": (
        lambda d: (d / "generation_config.json").write_text(""),
        "generation_config.json is not valid",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_checkpoints_are_explained(copy, case):
    directory = copy("llama", shards=3)
    change, message = BROKEN[case]
    change(directory)
    with pytest.raises(InputError) as caught:
        open_checkpoint(directory)
    assert message in str(caught.value)


def test_a_missing_tensor_is_named_with_its_neighbours():
    with open_checkpoint(cached_checkpoint("llama")) as checkpoint, pytest.raises(InputError) as caught:
        checkpoint.read("model.norm.weigth")
    assert "did you mean 'model.norm.weight'" in str(caught.value)


def test_a_missing_directory_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="not there"):
        open_checkpoint(tmp_path / "none")


@pytest.mark.parametrize(
    "name",
    ["model-00001-of-00003.safetensors", "config.json", "generation_config.json", "model.safetensors.index.json"],
)
def test_a_directory_that_cannot_be_looked_into(copy, monkeypatch, name):
    directory = copy("llama", shards=3)
    plain = Path.is_file

    def refuse(self):
        if self.name == name:
            raise PermissionError(13, "Permission denied", str(self))
        return plain(self)

    monkeypatch.setattr(Path, "is_file", refuse)
    with pytest.raises(InputError, match="the checkpoint cannot be read") as caught:
        open_checkpoint(directory)
    assert name in str(caught.value)


def test_a_directory_that_cannot_be_listed(tmp_path, monkeypatch):
    def refuse(self):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(InputError, match="the checkpoint cannot be read"):
        open_checkpoint(tmp_path)


def test_any_value_in_any_place_of_an_index_is_taken_or_refused(copy):
    directory = copy("llama", shards=3)
    path = directory / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"] = dict(list(index["weight_map"].items())[:2])
    for value in mutations(index):
        path.write_text(json.dumps(value))
        with contextlib.suppress(LlmbuildError):
            open_checkpoint(directory).close()
