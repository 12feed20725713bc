"""Packed checkpoints as sources: quantize makes of them what it makes of the plain weights that they stand for."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmbuild.checkpoints.packed.checkpoint import MARKS, refuse_packed
from llmbuild.checkpoints.packed.quantization import check_quantization
from llmbuild.engine.kind import Job
from llmbuild.errors import InputError
from llmbuild.quantization.scheme import SCHEMES
from llmbuild.tasks.quantize import KIND
from tests.helpers.checkpoints import cached_checkpoint, renamed_copy
from tests.helpers.inspected import facts_of
from tests.helpers.packed import awq_packer, fp8_packer, gptq_packer, make_packed_checkpoint, opened, plain_copy
from tests.helpers.reference_quant import read_weights

GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 64, "desc_act": True, "checkpoint_format": "gptq"}
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 64, "zero_point": True, "version": "gemm"}
FP8 = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [64, 64]}


def quantize(checkpoint: Path, out: Path, scheme: str = "q4f16_1", **options: Any) -> list[str]:
    """What the task writes to `out`; returns its notes."""
    notes: list[str] = []
    out.mkdir()
    params = {
        "scheme": SCHEMES[scheme].to_json(),
        "method": "round",
        "model-type": None,
        "ignore-keys": [],
        "source-format": None,
        "float32": "exact",
    }
    progress = options.pop("progress", lambda done, total, unit="": None)
    inputs = {"checkpoint": checkpoint, "facts": facts_of(checkpoint)}
    KIND.run(Job(params, inputs, {}, out, out, progress, note=notes.append, **options))
    return notes


@pytest.mark.parametrize(
    ("variant", "packer", "configuration", "said"),
    [
        ("llama-tied", gptq_packer(4, 64, act_order=True), GPTQ, "GPTQ, 4 bits"),
        ("gpt_neox", gptq_packer(8, 64), GPTQ | {"bits": 8}, "GPTQ, 8 bits"),
        ("qwen2", awq_packer(64), AWQ, "AWQ, 4 bits"),
        ("qwen3", fp8_packer((64, 64)), FP8, "FP8"),
    ],
)
@pytest.mark.parametrize("scheme", ["q4f16_1", "q0f32"])
def test_weights_are_those_of_the_plain_checkpoint(
    variant: str, packer: Any, configuration: dict[str, Any], said: str, scheme: str, tmp_path: Path
) -> None:
    packed = make_packed_checkpoint(tmp_path / "packed", packer, configuration, variant)
    plain = plain_copy(packed, tmp_path / "plain")
    assert quantize(plain, tmp_path / "expected", scheme) == []
    again = f"the weights were quantized before ({said}); {scheme} quantizes them once more"
    assert quantize(packed, tmp_path / "out", scheme) == ([again] if scheme == "q4f16_1" else [])
    for path in (tmp_path / "expected").iterdir():
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes(), path.name


def test_the_order_and_what_is_left_out(tmp_path: Path) -> None:
    import torch

    extra = {
        "model.layers.0.self_attn.q_proj.input_scale": torch.ones(1),
        "model.layers.0.self_attn.k_scale": torch.ones(1),
        "model.layers.0.self_attn.v_scale": torch.ones(1),
    }
    directory = make_packed_checkpoint(tmp_path, fp8_packer((64, 64)), FP8, extra=extra)
    notes: list[str] = []
    with opened(directory, notes.append) as checkpoint:
        names = list(checkpoint.tensors)
        assert [name for name in names if not name.endswith(".weight")] == []
        name = "model.layers.1.mlp.up_proj.weight"
        assert checkpoint.location(name) == "model.safetensors"
        assert checkpoint.tensors[name].dtype == checkpoint.read(name).dtype == "bfloat16"
    plain = cached_checkpoint("llama-gqa", dtype="bfloat16", config={"intermediate_size": 384})
    with opened(plain, notes.append) as checkpoint:
        assert checkpoint.packed_by is None
        assert sorted(checkpoint.tensors) == sorted(names)
    assert notes == ["2 scales of a cache of 8-bit keys and values are not used: this one holds them unquantized"]


def with_biases(module: str, value: float) -> Any:
    """A packer into GPTQ's tensors as AutoGPTQ does it, with a bias for every layer; that of one module has a value."""
    inner = gptq_packer(4, 64)

    def pack(name: str, weight: Any) -> dict[str, Any]:
        import torch

        bias = torch.zeros(len(weight), dtype=torch.float16)
        if name == module:
            bias[3] = value
        return {**inner(name, weight), "bias": bias}

    return pack


def test_biases_of_zeros_say_nothing(tmp_path: Path) -> None:
    quiet = make_packed_checkpoint(tmp_path / "in", gptq_packer(4, 64), GPTQ)
    quantize(quiet, tmp_path / "expected")
    name = "model.layers.1.mlp.up_proj"
    for value in (0.0, 0.5):
        packed = make_packed_checkpoint(tmp_path / f"in-{value}", with_biases(name, value), GPTQ)
        if value == 0:
            quantize(packed, tmp_path / "out")
            read, expected = read_weights(tmp_path / "out")[0], read_weights(tmp_path / "expected")[0]
            assert read.keys() == expected.keys()
            assert all((read[key] == expected[key]).all() for key in read)
        else:
            with pytest.raises(InputError, match=f"'{name}.bias': biases that the configuration denies"):
                quantize(packed, tmp_path / "refused")


@pytest.mark.parametrize("mark", MARKS)
def test_packed_weights_that_no_file_names(mark: str, tmp_path: Path) -> None:
    import torch

    directory = tmp_path / "source"
    packed = make_packed_checkpoint(directory, lambda module, weight: {mark[1:]: torch.ones(2)}, {})
    config = json.loads((packed / "config.json").read_text())
    del config["quantization_config"]
    (packed / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="the weights are quantized, and no file says how") as caught:
        quantize(packed, tmp_path / "out")
    assert len(str(caught.value).splitlines()) == 3
    assert str(caught.value.why).endswith(f"is what {MARKS[mark]} writes")


def test_numbers_that_are_no_plain_weights(tmp_path: Path) -> None:
    import torch

    packed = make_packed_checkpoint(
        tmp_path / "in", lambda module, weight: {"weight": weight.to(torch.float8_e5m2)}, {}
    )
    config = json.loads((packed / "config.json").read_text())
    del config["quantization_config"]
    (packed / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="the weights are quantized, and no file says how") as caught:
        quantize(packed, tmp_path / "out")
    assert str(caught.value.why).endswith("is float8_e5m2")


def test_a_configuration_of_packed_weights_over_plain_ones(tmp_path: Path) -> None:
    plain = make_packed_checkpoint(tmp_path / "in", lambda module, weight: {"weight": weight}, GPTQ)
    with pytest.raises(InputError, match="no weight is quantized, and the configuration names GPTQ") as caught:
        quantize(plain, tmp_path / "out")
    assert caught.value.where == "config.json: quantization_config"
    # FP8 may leave any weight as it is, and a file that a packer left behind says nothing of weights that are plain again.
    config = json.loads((plain / "config.json").read_text())
    for name, changed in (
        ("fp8", config | {"quantization_config": FP8}),
        ("left", config | {"quantization_config": None}),
    ):
        (plain / "config.json").write_text(json.dumps(changed))
        (plain / "quantize_config.json").write_text(json.dumps({"bits": 4, "group_size": 128}))
        assert quantize(plain, tmp_path / name) == []


def test_packed_weights_of_another_method(tmp_path: Path) -> None:
    packed = make_packed_checkpoint(tmp_path / "in", fp8_packer((64, 64)), GPTQ)
    with pytest.raises(InputError) as caught:
        quantize(packed, tmp_path / "out")
    assert caught.value.what == ("the weights are not quantized by GPTQ, as config.json: quantization_config has it")
    assert str(caught.value.why).endswith("weight_scale_inv' is what FP8 writes")


def test_a_weight_that_is_stored_twice(tmp_path: Path) -> None:
    import torch

    name = "model.layers.0.mlp.up_proj.weight"
    packed = make_packed_checkpoint(tmp_path / "in", gptq_packer(4, 64), GPTQ, extra={name: torch.zeros(384, 128)})
    with pytest.raises(InputError, match=re.escape(f"tensor '{name}' does not fit")) as caught:
        quantize(packed, tmp_path / "out")
    assert caught.value.why == "it is plain, and 'model.layers.0.mlp.up_proj.qweight' is the same weight packed"


def test_a_file_of_the_packer_names_the_method(tmp_path: Path) -> None:
    packed = make_packed_checkpoint(tmp_path / "in", gptq_packer(4, 64), {})
    config = json.loads((packed / "config.json").read_text())
    del config["quantization_config"]
    (packed / "config.json").write_text(json.dumps(config))
    (packed / "quantize_config.json").write_text(json.dumps({"bits": 4, "group_size": 64, "desc_act": False}))
    assert quantize(packed, tmp_path / "out") == [
        "the weights were quantized before (GPTQ, 4 bits); q4f16_1 quantizes them once more"
    ]


def test_compressed_weights_without_groups_are_one_sentence(tmp_path: Path) -> None:
    import torch

    def pack(module: str, weight: Any) -> dict[str, Any]:
        return {"weight": weight.to(torch.float8_e4m3fn), "weight_scale": torch.ones(len(weight), 1)}

    said = {"quant_method": "compressed-tensors", "format": "float-quantized", "ignore": ["lm_head"]}
    packed = make_packed_checkpoint(tmp_path / "in", pack, said)
    with pytest.raises(InputError) as caught:
        quantize(packed, tmp_path / "out")
    assert str(caught.value).splitlines() == [
        "config.json: quantization_config.config_groups: the weights are quantized by compressed-tensors in a form that is"
        " not read",
        "  why: config_groups is missing, and must be an object",
        "  fix: name the checkpoint that it was made from as the source",
    ]


@pytest.mark.parametrize("quantization", ["Q4_0", "Q8_0", "F16"])
def test_a_gguf_file_of_blocks_is_named_too(quantization: str, tmp_path: Path) -> None:
    from tests.helpers.gguf_files import make_gguf

    path = make_gguf(tmp_path / "tiny.gguf", "llama", quantization=quantization)
    notes = quantize(path, tmp_path / "out")
    again = f"the weights were quantized before (GGUF, {quantization}); q4f16_1 quantizes them once more"
    assert notes == ([] if quantization == "F16" else [again])


def test_the_weights_that_awq_packed_keep_their_bits(tmp_path: Path) -> None:
    packed = make_packed_checkpoint(tmp_path / "in", awq_packer(128), AWQ | {"group_size": 128}, dtype="float16")
    assert quantize(packed, tmp_path / "out", "q4f16_awq") == []
    stored, _ = read_weights(tmp_path / "out")
    assert stored["model.layers.0.mlp.down_proj.qweight"].dtype == np.uint32


@pytest.mark.parametrize(("old", "new"), [("model.", "model.language_model."), ("model.", ""), ("", "module.")])
def test_what_awq_packed_is_found_under_other_names(old: str, new: str, tmp_path: Path) -> None:
    packed = make_packed_checkpoint(tmp_path / "in", awq_packer(128), AWQ | {"group_size": 128}, dtype="float16")
    assert quantize(packed, tmp_path / "expected", "q4f16_awq") == []
    other = renamed_copy(packed, tmp_path / "other", old, new)
    (note,) = quantize(other, tmp_path / "out", "q4f16_awq")
    assert "tensors are read under the names that the model has for them" in note
    stored, expected = (read_weights(tmp_path / place)[0] for place in ("out", "expected"))
    assert stored.keys() == expected.keys()
    assert all(np.array_equal(stored[name], expected[name]) for name in expected)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("packer", "configuration"),
    [
        (gptq_packer(4, 128, act_order=True), GPTQ | {"group_size": 128}),
        (fp8_packer((128, 128)), FP8 | {"weight_block_size": [128, 128]}),
    ],
)
def test_memory_is_that_of_a_plain_checkpoint(
    packer: Callable[..., Any], configuration: dict[str, Any], tmp_path: Path
) -> None:
    import resource
    import subprocess

    config = {"hidden_size": 512, "intermediate_size": 16384, "num_hidden_layers": 1}
    packed = make_packed_checkpoint(tmp_path / "packed", packer, configuration, "llama", shape=config)
    plain = plain_copy(packed, tmp_path / "plain")
    del resource

    def peak(directory: Path) -> int:
        code = MEASURE.format(
            source=str(directory), facts=str(facts_of(directory)), out=str(tmp_path / f"{directory.name}-out")
        )
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        return int(result.stdout.split()[-1])

    # Beside the weight itself there are its packed numbers, and blocks of a few megabytes; a copy in float32 has 32.
    assert peak(packed) < peak(plain) + (24 << 20)


MEASURE = """
from pathlib import Path
import numpy, ml_dtypes
from llmbuild.engine.kind import Job
from llmbuild.quantization.scheme import SCHEMES
from llmbuild.tasks.quantize import KIND

def memory():
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) << 10

before = memory()
out = Path({out!r})
out.mkdir()
params = {{"scheme": SCHEMES["q4f16_1"].to_json(), "model-type": None, "ignore-keys": []}}
params |= {{"source-format": None, "float32": "bf16", "method": "round"}}
inputs = {{"checkpoint": Path({source!r}), "facts": Path({facts!r})}}
KIND.run(Job(params, inputs, {{"threads": 2}}, out, out, lambda done, total, unit="": None))
print(memory() - before)
"""


def test_what_is_not_said_is_not_checked() -> None:
    assert check_quantization({"quantization": "int8"}) is None
    with opened(cached_checkpoint("llama"), lambda note: None) as checkpoint:
        refuse_packed(checkpoint, "never said")
