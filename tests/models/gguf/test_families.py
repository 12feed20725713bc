"""A GGUF file of each family, made by llama.cpp's rules, is read as the checkpoint that it was made of."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from llmbuild.checkpoints.gguf_split import open_gguf
from llmbuild.checkpoints.tensor import Checkpoint
from llmbuild.errors import InputError
from llmbuild.models.architecture import DecoderFamily
from llmbuild.models.family import Overrides
from llmbuild.models.gguf import known
from llmbuild.models.gguf.architecture import GgufArchitecture
from llmbuild.models.gguf.checkpoint import read_gguf_description, read_gguf_metadata
from llmbuild.models.gguf.head import check_head
from llmbuild.models.gguf.known import gguf_families, require_architecture
from llmbuild.models.open import open_checkpoint
from llmbuild.models.registry import families, family, infer_model_type
from tests.helpers.gguf_converter import add_value, convert
from tests.helpers.gguf_files import make_config
from tests.helpers.variants import variants, write_checkpoint

LOST: Mapping[str, Mapping[str, Any]] = {
    "baichuan": {"architectures": ["BaiChuanForCausalLM"]},
    "gemma2": {"query_pre_attn_scalar": 32},
    "gemma3_text": {"query_pre_attn_scalar": 32, "sliding_window_pattern": 6, "num_hidden_layers": 6},
    "phi": {"intermediate_size": 256},
    "smollm3": {"no_rope_layer_interval": 4},
    "starcoder2": {"sliding_window": None},
}
"""Values of families' first variants that GGUF has no key for, as llama.cpp computes them."""

WITH_GGUF = [name for name, one in families().items() if one.gguf is not None]


OTHERS = ("llama/tied, biases, llama3", "stablelm/1.6b")


def first(name: str) -> dict[str, Any]:
    """A variant, or the first one of a family, as far as GGUF can say it."""
    chosen = next(one for one in variants() if one == name or one.startswith(f"{name}/"))
    return {**variants()[chosen], **LOST.get(chosen.partition("/")[0], {})}


def flat(value: Any) -> Any:
    """A description of a decoder without what frequencies were made of."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [item.name for item in dataclasses.fields(value) if item.name not in ("theta", "scaling")]
        return {name: flat(getattr(value, name)) for name in names}
    return [flat(item) for item in value] if isinstance(value, tuple) else value


def equal(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(equal, one, other))
    return one == pytest.approx(other, rel=1e-5) if isinstance(one, float) else bool(one == other)


def parameters(kind: DecoderFamily, checkpoint: Checkpoint) -> dict[str, np.ndarray]:
    config = kind.configure(checkpoint.config, Overrides())
    found = {}
    for parameter in kind.parameters(config):
        values = [checkpoint.read(source) for source in parameter.sources]
        infos = [checkpoint.tensors[source] for source in parameter.sources]
        assert [(value.shape, str(value.dtype)) for value in values] == [(info.shape, info.dtype) for info in infos]
        found[parameter.name] = parameter.assemble(values)
    return found


@pytest.mark.parametrize("name", [*WITH_GGUF, *OTHERS])
def test_a_file_is_read_as_its_checkpoint(name: str, tmp_path: Path) -> None:
    source, path = tmp_path / "checkpoint", tmp_path / "model.gguf"
    write_checkpoint(source, first(name))
    convert(source, path)
    with open_checkpoint(path) as read, open_checkpoint(source) as original:
        kind = family(infer_model_type(read.config))
        assert kind.model_type == name.partition("/")[0]
        specs = [flat(kind.decoder(kind.configure(one.config, Overrides()))) for one in (read, original)]
        assert equal(*specs)
        wanted = parameters(kind, original)
        for parameter, value in parameters(kind, read).items():
            # One more and one less is not always the same number.
            if "norm" in parameter or parameter.endswith(".ln.weight"):
                assert np.allclose(value, wanted[parameter], rtol=0, atol=1e-6), parameter
            else:
                assert np.array_equal(value, wanted[parameter]), parameter


@pytest.mark.parametrize("name", ["phi3", "stablelm"])
def test_numbers_of_blocks_are_restored_like_others(name: str, tmp_path: Path) -> None:
    source, path = tmp_path / "checkpoint", tmp_path / "model.gguf"
    write_checkpoint(source, first(name) | {"intermediate_size": 128})
    convert(source, path, quantization="Q8_0")
    with open_checkpoint(path) as read, open_checkpoint(source) as original:
        wanted = parameters(family(name), original)
        for parameter, value in parameters(family(name), read).items():
            assert np.abs(value - wanted[parameter]).max() <= np.abs(wanted[parameter]).max() / 200, parameter


def rewritten(path: Path, *, put: Mapping[str, Any], names: Mapping[str, str]) -> Path:
    """A file with other metadata, and other names of tensors; a tensor named "" is left out."""
    reader = gguf.GGUFReader(path)
    field = reader.get_field("general.architecture")
    assert field is not None
    writer = gguf.GGUFWriter(path.with_name("other.gguf"), field.contents())
    values = {name: one.contents() for name, one in reader.fields.items() if not name.startswith(("GGUF.", "general."))}
    for key, value in (values | {f"{field.contents()}.{key}": value for key, value in put.items()}).items():
        add_value(writer, key, value)
    for tensor in reader.tensors:
        if name := names.get(tensor.name, tensor.name):
            writer.add_tensor(name, np.array(tensor.data))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.with_name("other.gguf")


WRONG: Mapping[str, tuple[str, Mapping[str, Any], Mapping[str, str], str]] = {
    "parts": (
        "gpt_neox",
        {},
        {
            "blk.0.attn_qkv.weight": "blk.0.attn_v.weight",
            **dict.fromkeys(("blk.0.attn_qkv.bias", "blk.1.attn_qkv.weight", "blk.1.attn_qkv.bias"), ""),
        },
        "tensor 'blk.0.attn_q.weight' is missing",
    ),
    "pattern": (
        "gemma2",
        {"attention.sliding_window_pattern": [True, False]},
        {},
        "[1, 0] does not say which layers have a window",
    ),
    "window": ("olmo", {"attention.sliding_window": 8}, {}, "it is 8, which is not supported for olmo"),
    "no rope": ("granite", {"rope.scaling.finetuned": False}, {}, "it is false, which means no RoPE"),
    "no factors": ("llama", {"rope.scaling.type": "longrope"}, {}, "the file has no factors for it"),
    "heads": (
        "starcoder2",
        {"attention.head_count": 3, "attention.head_count_kv": 3},
        {},
        "which the attention heads do not divide",
    ),
    "whole heads": ("stablelm", {"attention.key_length": 8}, {}, "heads do not divide"),
    "layers": ("qwen3", {"block_count": 5000}, {}, "5000 is not a possible count"),
    "more layers": ("qwen3", {"block_count": 1}, {}, "'blk.1.attn_norm.weight' is not one of architecture qwen3"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_content_is_explained(case: str, tmp_path: Path) -> None:
    name, put, names, message = WRONG[case]
    source, path = tmp_path / "checkpoint", tmp_path / "model.gguf"
    write_checkpoint(source, first(name))
    convert(source, path)
    with pytest.raises(InputError) as caught:
        open_checkpoint(rewritten(path, put=put, names=names))
    assert message in str(caught.value)


def test_a_known_family_is_read_without_a_look_at_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, path = tmp_path / "checkpoint", tmp_path / "model.gguf"
    write_checkpoint(source, first("mistral"))
    convert(source, path)
    with open_checkpoint(path) as found, open_checkpoint(path, family=family("qwen2")) as other:
        assert other.config == found.config
    monkeypatch.setattr(known, "gguf_families", lambda: pytest.fail("all families are looked at"))
    with open_checkpoint(path, family=family("mistral")) as read:
        assert read.config == found.config
    assert read_metadata_of(path, "mistral") == found.config
    with pytest.raises(InputError, match="metadata cannot be used") as caught:
        open_checkpoint(path, family=family("llama"))
    assert caught.value.why == "it is 8, which is not supported for llama"


def test_a_family_of_a_project_is_read_by_its_own_name(tmp_path: Path) -> None:
    source, path = tmp_path / "checkpoint", tmp_path / "model.gguf"
    write_checkpoint(source, first("qwen3"))
    convert(source, path, like="parrot")
    with pytest.raises(InputError, match="architecture 'parrot' is not supported"):
        open_checkpoint(path)
    own = dataclasses.replace(family("qwen3"), gguf=GgufArchitecture("parrot"))
    with open_checkpoint(path, family=own) as read, open_checkpoint(source) as original:
        assert all(np.array_equal(read.read(name), original.read(name)) for name in original.tensors)
    assert read_gguf_description(path, own)["config.json"] == read.config
    check_head(path.read_bytes()[:1000], own)
    with pytest.raises(InputError, match="architecture 'parrot' is not supported"):
        check_head(path.read_bytes()[:1000])


def read_metadata_of(path: Path, model_type: str) -> Any:
    """The configuration as it is read without the weights, of a file without a tokenizer."""
    with pytest.raises(InputError, match="tokenizer"):
        read_gguf_metadata(path, known=family(model_type))
    file = open_gguf(path)
    try:
        return make_config(file.metadata, file.tensors, {}, path, family(model_type))
    finally:
        file.close()


def test_an_architecture_that_no_family_has() -> None:
    with pytest.raises(InputError) as caught:
        require_architecture({"general.architecture": "stablelmm"}, Path("x.gguf"))
    assert caught.value.why == "did you mean 'stablelm'?"


@pytest.mark.parametrize(
    ("name", "like", "put"),
    [
        ("qwen2", "qwen2vl", {"rope.dimension_sections": [16, 24, 24, 0]}),
        ("qwen3", "qwen3vl", {"rope.dimension_sections": [24, 20, 20, 0], "n_deepstack_layers": 3}),
        ("mistral", "mistral3", {}),
    ],
)
def test_the_text_of_a_model_of_text_and_images(name: str, like: str, put: Mapping[str, Any], tmp_path: Path) -> None:
    source, path = tmp_path / "checkpoint", tmp_path / "model.gguf"
    write_checkpoint(source, first(name))
    convert(source, path)
    convert(source, tmp_path / "other.gguf", like=like, put=put)
    with open_checkpoint(path) as one, open_checkpoint(tmp_path / "other.gguf") as other:
        assert (one.config, list(one.tensors)) == (other.config, list(other.tensors))
        assert all(np.array_equal(one.read(tensor), other.read(tensor)) for tensor in one.tensors)


def test_the_names_are_ggufs() -> None:
    assert set(gguf_families()) <= set(gguf.MODEL_ARCH_NAMES.values())
