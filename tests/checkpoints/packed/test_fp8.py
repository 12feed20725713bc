"""FP8 weights against transformers, which multiplies them out where no GPU computes with them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from llmbuild.checkpoints.packed.fp8 import Fp8
from llmbuild.checkpoints.packed.stated import Quantization
from llmbuild.checkpoints.packed.weight import PackedWeight
from llmbuild.errors import InputError
from tests.helpers.packed import fp8_packer, make_packed_checkpoint, opened, stored_of

FP8 = ml_dtypes.float8_e4m3fn
CONFIG = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [64, 128]}


@pytest.mark.parametrize(
    ("variant", "dtype"), [("llama-gqa", "bfloat16"), ("qwen3", "float16"), ("mistral", "float32")]
)
def test_blocks_are_multiplied_out_as_transformers_does(variant: str, dtype: str, tmp_path: Path) -> None:
    directory = make_packed_checkpoint(tmp_path, fp8_packer((64, 128)), CONFIG, variant, dtype=dtype)
    assert_as_transformers(directory, dtype)


def test_one_scale_for_a_tensor_as_transformers_does(tmp_path: Path) -> None:
    import torch

    def pack(module: str, weight: Any) -> dict[str, Any]:
        scale = weight.abs().max() / 448
        return {
            "weight": (weight / scale).to(torch.float8_e4m3fn),
            "weight_scale_inv": scale.reshape(()),
            "activation_scale": torch.tensor(0.5),
        }

    config = {"quant_method": "fp8", "activation_scheme": "static", "weight_block_size": None}
    assert_as_transformers(make_packed_checkpoint(tmp_path, pack, config), "bfloat16")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_configuration_without_a_number_type(dtype: str, tmp_path: Path) -> None:
    directory = make_packed_checkpoint(tmp_path, fp8_packer((64, 128)), CONFIG, dtype=dtype)
    config = json.loads((directory / "config.json").read_text())
    del config["torch_dtype"]
    (directory / "config.json").write_text(json.dumps(config))
    assert_as_transformers(directory, dtype)


def test_mxfp8_as_transformers_does(tmp_path: Path) -> None:
    """Scales of 32 inputs, stored as exponents."""
    import torch

    def pack(module: str, weight: Any) -> dict[str, Any]:
        n, k = weight.shape
        exponents = (weight.abs().reshape(n, k // 32, 32).amax(2) / 448).log2().ceil()
        numbers = weight / exponents.exp2().repeat_interleave(32, 1)
        return {
            "weight": numbers.to(torch.float8_e4m3fn),
            "weight_scale_inv": (exponents + 127).clamp(0, 254).to(torch.uint8),
        }

    config = {"quant_method": "mxfp8", "weight_block_size": [1, 32], "scale_fmt": "float"}
    directory = make_packed_checkpoint(tmp_path / "stated", pack, config)
    assert_as_transformers(directory, "bfloat16", "MXFP8")
    # The size of a block is part of the format.
    silent = make_packed_checkpoint(tmp_path / "silent", pack, {"quant_method": "mxfp8"})
    with opened(directory, print) as stated, opened(silent, print) as checkpoint:
        for name in stated.tensors:
            assert stated.read(name).tobytes() == checkpoint.read(name).tobytes()


@pytest.mark.parametrize("algorithm", ["FP8", "FP8_PER_CHANNEL_PER_TOKEN"])
@pytest.mark.parametrize("beside", [False, True])
def test_the_two_algorithms_of_modelopt_that_are_fp8(algorithm: str, beside: bool, tmp_path: Path) -> None:
    """A float32 scale for a weight or an output, by the definition: ModelOpt is no loader of transformers."""
    import torch

    expected: dict[str, np.ndarray] = {}

    def pack(module: str, weight: Any) -> dict[str, Any]:
        scale = weight.abs().max() / 448 if algorithm == "FP8" else weight.abs().amax(1) / 448
        numbers = (weight / (scale if algorithm == "FP8" else scale[:, None])).to(torch.float8_e4m3fn)
        product = numbers.float() * (scale if algorithm == "FP8" else scale[:, None])
        expected[f"{module}.weight"] = product.bfloat16().float().numpy()
        scales = {"weight_scale": scale, "input_scale": torch.tensor(0.25)}
        return {"weight": numbers, **scales} | ({"k_scale": torch.tensor(0.5)} if module.endswith("k_proj") else {})

    said = {"quant_algo": algorithm, "kv_cache_quant_algo": "FP8", "exclude_modules": ["lm_head"]}
    directory = make_packed_checkpoint(tmp_path, pack, {"quant_method": "modelopt", "producer": {}, **said})
    if beside:
        config = json.loads((directory / "config.json").read_text())
        del config["quantization_config"]
        (directory / "config.json").write_text(json.dumps(config))
        content = {"producer": {"name": "modelopt", "version": "0.47.0"}, "quantization": said}
        (directory / "hf_quant_config.json").write_text(json.dumps(content))
    notes: list[str] = []
    with opened(directory, notes.append) as checkpoint:
        assert checkpoint.packed_by == f"ModelOpt ({algorithm})"
        for name, value in expected.items():
            assert (checkpoint.read(name).astype(np.float32) == value).all()
        assert not [name for name in checkpoint.tensors if name.endswith("_scale")]
    assert [note.split()[0] for note in notes] == ["2"]


def assert_as_transformers(directory: Path, dtype: str, method: str = "FP8") -> None:
    import torch
    from transformers import AutoModelForCausalLM

    notes: list[str] = []
    reference = AutoModelForCausalLM.from_pretrained(directory).state_dict()
    with opened(directory, notes.append) as checkpoint:
        assert checkpoint.packed_by == method
        assert checkpoint.tensors.keys() == reference.keys()
        for name, info in checkpoint.tensors.items():
            value = checkpoint.read(name)
            assert (value.shape, value.dtype.name) == (info.shape, info.dtype)
            assert info.dtype == dtype
            expected = reference[name]
            assert expected.dtype == getattr(torch, dtype)
            assert (value.astype(np.float32) == expected.float().numpy()).all(), name
    assert notes == []


def method(config: dict[str, Any] | None = None, **changes: Any) -> Fp8:
    values = {"quant_method": "fp8", "weight_block_size": [16, 32]} | changes
    return Fp8.of(Quantization("fp8", values, "config.json", "quantization_config"), config or {"dtype": "bfloat16"})


def weight_of(weight: np.ndarray, scale: np.ndarray, name: str = "weight_scale_inv", **changes: Any) -> PackedWeight:
    (found,) = method(**changes).weights(stored_of({"m.weight": weight, f"m.{name}": scale}))
    return found


SHAPES = "a weight [40, 80] has one scale, 40, or [3, 3] of blocks [16, 32]"
FLOATS = "and 'm.weight_scale_inv' is for floats of 8 bits"


def numbers(n: int, k: int) -> np.ndarray:
    return np.random.default_rng(n).standard_normal((n, k)).astype(FP8)


def test_blocks_at_the_edges_may_be_smaller() -> None:
    weight, scale = numbers(40, 80), np.random.default_rng(1).random((3, 3)).astype(np.float32)
    spread = scale.repeat(16, axis=0)[:40].repeat(32, axis=1)[:, :80]
    expected = (weight.astype(np.float32) * spread).astype(ml_dtypes.bfloat16)
    assert weight_of(weight, scale).unpack().tobytes() == expected.tobytes()


@pytest.mark.parametrize("shape", [(), (1,), (1, 1), (40,), (40, 1)])
@pytest.mark.parametrize("name", ["weight_scale", "weight_scale_inv"])
def test_a_scale_for_a_tensor_and_one_for_an_output(shape: tuple[int, ...], name: str) -> None:
    weight = numbers(40, 80)
    scale = (np.random.default_rng(1).random(shape) + 0.1).astype(np.float32)
    scale = np.asarray(scale, np.float32)
    expected = (weight.astype(np.float32) * scale.reshape(-1, 1)).astype(ml_dtypes.bfloat16)
    assert weight_of(weight, scale, name).unpack().tobytes() == expected.tobytes()


def test_scales_that_are_powers_of_two() -> None:
    weight, exponents = numbers(16, 64), np.array([[120, 131]], np.uint8)
    expected = weight.astype(np.float32) * np.repeat([[2.0**-7, 2.0**4]], 32, axis=1).astype(np.float32)
    assert (weight_of(weight, exponents).unpack() == expected.astype(ml_dtypes.bfloat16)).all()


def test_weights_that_are_plain_stay_plain() -> None:
    found = method().weights(stored_of({"m.weight": np.ones((16, 32), np.float32), "m.bias": np.ones(16, np.float32)}))
    assert list(found) == []


@pytest.mark.parametrize(
    ("weight", "scale", "part", "message"),
    [
        (numbers(40, 80), np.ones((3, 2), np.float32), "weight_scale_inv", f"it has shape [3, 2]; {SHAPES}"),
        (numbers(40, 80), np.ones((3, 3), np.int32), "weight_scale_inv", "it is int32"),
        (numbers(40, 80)[0], np.ones((), np.float32), "weight", "it has shape [80]"),
        (np.ones((40, 80), np.float16), np.ones((), np.float32), "weight", f"it is float16, {FLOATS}"),
    ],
)
def test_tensors_that_do_not_fit_are_one_sentence(weight: Any, scale: np.ndarray, part: str, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(f"tensor 'm.{part}' does not fit")) as caught:
        weight_of(weight, scale)
    assert str(caught.value.why).startswith(message)


def test_a_weight_without_a_scale() -> None:
    with pytest.raises(InputError, match=r"tensor 'm.weight' does not fit") as caught:
        list(method().weights(stored_of({"m.weight": numbers(4, 4)})))
    assert caught.value.why == "it is float8_e4m3fn, and has no weight_scale_inv and no weight_scale"


@pytest.mark.parametrize("block", [[128], [128, 0], "128x128", 128, [128.0, 128]])
def test_blocks_that_are_not_two_numbers(block: Any) -> None:
    with pytest.raises(InputError, match="quantized by FP8 in a form that is not read") as caught:
        method(weight_block_size=block)
    assert caught.value.where == "config.json: quantization_config.weight_block_size"
