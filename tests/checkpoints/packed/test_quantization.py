"""What config.json and the files beside it say of quantized weights: every method has its name, and most are refused."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from llmbuild.checkpoints.packed.quantization import check_quantization, method_of, read_quantization_files
from llmbuild.checkpoints.packed.stated import NOT_READ, READ
from llmbuild.engine.kind import Job, no_progress
from llmbuild.errors import InputError, LlmbuildError
from llmbuild.manifest.starter import propose
from llmbuild.quantization.scheme import SCHEMES
from llmbuild.tasks.facts import FACTS
from llmbuild.tasks.inspect import KIND as INSPECT
from llmbuild.tasks.quantize import KIND
from tests.helpers.checkpoints import CONFIGS, cached_checkpoint
from tests.helpers.packed import stored_of
from tests.helpers.replaced_parts import mutations


def refused(config: dict[str, Any], files: dict[str, dict[str, Any]] | None = None) -> InputError:
    with pytest.raises(InputError) as caught:
        check_quantization(config, files)
    assert len(str(caught.value).splitlines()) <= 3
    return caught.value


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}, "bitsandbytes"),
        ({"load_in_8bit": True}, "bitsandbytes"),
        ({"quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "online"}, "BitNet"),
        ({"quant_method": "hqq", "quant_config": {}}, "HQQ"),
        ({"quant_method": "eetq", "weights": "int8"}, "EETQ"),
        ({"quant_method": "quanto", "weights": "int4"}, "Quanto"),
        ({"quant_method": "aqlm"}, "AQLM"),
        ({"quant_method": "torchao", "quant_type": {"default": {}}}, "torchao"),
        ({"quant_method": "mxfp4"}, "MXFP4"),
        ({"quant_method": "nvfp4"}, "NVFP4"),
        # MLX's own converter writes no method.
        ({"group_size": 64, "bits": 4}, "MLX"),
        ({"quant_method": "Quark"}, "Quark"),
        ({"quant_method": "tomorrow's"}, 'an unknown method "tomorrow\'s"'),
    ],
)
def test_a_method_that_is_not_read_is_named(values: dict[str, Any], name: str) -> None:
    error = refused({"quantization_config": values})
    assert error.what == f"the weights are quantized by {name}, which is not read"
    key = "quantization_config.quant_method" if "quant_method" in values else "quantization_config"
    assert error.where == f"config.json: {key}"


def test_other_places_where_a_method_is_named() -> None:
    assert "MLX" in refused({"quantization": {"group_size": 64, "bits": 4}}).what
    modelopt = {"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "W4A8_AWQ"}}
    error = refused({}, {"hf_quant_config.json": modelopt})
    assert (error.what, error.where) == (
        "the weights are quantized by ModelOpt (W4A8_AWQ) in a form that is not read",
        "hf_quant_config.json: quantization.quant_algo",
    )
    assert "bitsandbytes" in refused({"compression_config": {"quant_method": "bitsandbytes"}}).what
    packed = check_quantization({}, {"quant_config.json": {"w_bit": 4, "q_group_size": 64, "version": "GEMM"}})
    assert packed is not None
    assert (packed.method, packed.values["bits"], packed.values["group_size"]) == ("awq", 4, 64)
    for silent in ({"hf_quant_config.json": {"quantization": {"quant_algo": None}}}, {"quantize_config.json": {}}):
        assert check_quantization({}, silent) is None  # type: ignore[arg-type]
    # config.json counts before the files beside it.
    assert "HQQ" in refused({"quantization_config": {"quant_method": "hqq"}}, {"quant_config.json": {}}).what


@pytest.mark.parametrize(
    "values",
    [
        {"quant_algo": "NVFP4"},
        {"quant_algo": "FP8_PB_WO"},
        {"quant_algo": "MIXED_PRECISION", "quantized_layers": {}},
        {"config_groups": {}},
    ],
)
def test_the_algorithms_of_modelopt_that_are_not_read(values: dict[str, Any]) -> None:
    algorithm = f" ({values['quant_algo']})" if "quant_algo" in values else ""
    error = refused({"quantization_config": {"quant_method": "modelopt", **values}})
    assert error.what == f"the weights are quantized by ModelOpt{algorithm} in a form that is not read"
    assert error.where == "config.json: quantization_config.quant_algo"


@pytest.mark.parametrize("values", [{}, {"bits": 4}, {"quant_method": 7}, {"quant_method": ""}])
def test_a_configuration_without_a_method(values: dict[str, Any]) -> None:
    error = refused({"quantization_config": values})
    assert error.what == "the weights are quantized, and no method is named"
    assert error.where == "config.json: quantization_config.quant_method"


def test_a_key_that_the_model_ignores() -> None:
    config = {"quantization_config": {"quant_method": "bitnet"}}
    assert check_quantization(config, ignore=["quantization_config"]) is None
    with pytest.raises(InputError, match="BitNet"):
        check_quantization(config, ignore=["quantization"])


def test_plain_weights_and_what_is_no_object() -> None:
    assert check_quantization({}) is None
    assert check_quantization({"quantization_config": None}) is None
    assert refused({"quantization_config": "awq"}).where == "config.json: quantization_config"


def test_every_method_of_transformers_has_a_name() -> None:
    from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING

    methods = {name.removesuffix("_4bit").removesuffix("_8bit") for name in AUTO_QUANTIZATION_CONFIG_MAPPING}
    assert methods <= READ.keys() | NOT_READ.keys()
    assert not READ.keys() & NOT_READ.keys()


def test_any_value_in_any_place_is_taken_or_refused() -> None:
    config = {"quantization_config": {"quant_method": "awq", "load_in_4bit": False, "bits": 4, "quant_algo": "x"}}
    for value in mutations(config):
        if isinstance(value, dict):
            with contextlib.suppress(LlmbuildError):
                check_quantization(value)
    for content in mutations({"quantization": {"quant_algo": "FP8"}, "quant_method": "gptq"}):
        if isinstance(content, dict):
            for file in ("hf_quant_config.json", "quantize_config.json"):
                with contextlib.suppress(LlmbuildError):
                    check_quantization({}, {file: content})


WEIGHTS = {"num_bits": 4, "strategy": "block", "block_structure": [2, 2], "group_size": None, "symmetric": True}
FORMS: tuple[dict[str, Any], ...] = (
    {"quant_method": "fp8", "weight_block_size": [128, 128]},
    {"quant_method": "modelopt", "quant_algo": "FP8"},
    {
        "quant_method": "auto-round",
        "bits": 4,
        "group_size": 128,
        "packing_format": "auto_round:auto_gptq",
        "extra_config": {"lm_head": {"bits": 8, "group_size": 32}},
    },
    {"quant_method": "gptq", "bits": 4, "group_size": 128, "checkpoint_format": "gptq", "dynamic": {"a": {}}},
    {"quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemm", "backend": "autoawq"},
    {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "sparsity_config": {"format": "dense"},
        "transform_config": {},
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": WEIGHTS, "format": "int-quantized"}},
    },
)
TENSORS = {
    "m.qweight": np.zeros((16, 128), np.int32),
    "m.qzeros": np.zeros((1, 16), np.int32),
    "m.scales": np.zeros((1, 128), np.float16),
    "c.weight_packed": np.zeros((128, 16), np.int32),
    "c.weight_scale": np.zeros((64, 64), np.float16),
    "c.weight_shape": np.array([128, 128]),
    "f.weight": np.zeros((2, 2), ml_dtypes.float8_e4m3fn),
    "f.weight_scale_inv": np.zeros((1, 1), np.float32),
}


@pytest.mark.parametrize("number", range(len(FORMS)))
def test_any_value_in_any_place_of_a_method_that_is_read(number: int) -> None:
    found = check_quantization({"quantization_config": FORMS[number]})
    assert found is not None
    for values in mutations(FORMS[number]):
        config = {"quantization_config": values, "dtype": values}
        with contextlib.suppress(LlmbuildError):
            changed = check_quantization(config)
            if changed is not None:
                for weight in method_of(changed, config).weights(stored_of(TENSORS)):
                    weight.unpack()


@pytest.mark.parametrize("variant", ["llama", "mistral", "gpt_neox", "qwen2", "qwen3"])
def test_plain_weights_that_are_used_rounded_are_refused_for_every_family(variant: str, tmp_path: Path) -> None:
    """BitNet's online mode stores plain weights and rounds them as it computes."""
    checkpoint = online(tmp_path / "source", variant)
    with pytest.raises(InputError, match="quantized by BitNet"):
        propose(str(checkpoint), tmp_path)
    with pytest.raises(InputError, match="quantized by BitNet"):
        quantize(checkpoint, tmp_path)
    quantize(checkpoint, tmp_path, ignore=["quantization_config"])


def test_a_file_beside_a_silent_config_counts(tmp_path: Path) -> None:
    checkpoint = online(tmp_path / "source", "llama")
    (checkpoint / "config.json").write_text(json.dumps(CONFIGS["llama"]))
    (checkpoint / "hf_quant_config.json").write_text(json.dumps({"quantization": {"quant_algo": "NVFP4"}}))
    assert list(read_quantization_files(checkpoint)) == ["hf_quant_config.json"]
    with pytest.raises(InputError, match=r"quantized by ModelOpt \(NVFP4\)"):
        quantize(checkpoint, tmp_path)


def online(directory: Path, variant: str) -> Path:
    directory.mkdir()
    packed = {"quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "online"}
    (directory / "config.json").write_text(json.dumps({**CONFIGS[variant], "quantization_config": packed}))
    shutil.copy(cached_checkpoint(variant) / "model.safetensors", directory)
    return directory


def quantize(checkpoint: Path, scratch: Path, ignore: Sequence[str] = ()) -> None:

    params: dict[str, Any] = {
        "model-type": None,
        "ignore-keys": list(ignore),
        "source-format": None,
        "float32": "bf16",
        "method": "round",
    }
    inputs = {"checkpoint": checkpoint}
    out = scratch / "out"
    for kind, name in ((INSPECT, "facts"), (KIND, "weights")):
        (out / name).mkdir(parents=True, exist_ok=True)
        job = Job(params | {"scheme": SCHEMES["q4f16_1"].to_json()}, inputs, {}, out / name, out, no_progress)
        kind.run(job)
        inputs["facts"] = out / "facts" / FACTS
