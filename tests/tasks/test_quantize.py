"""The quantize task on checkpoints on disk: every family, sharded and whole, with an adapter, and damaged ones."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmbuild.canonical import Json
from llmbuild.engine.kind import Job
from llmbuild.errors import InputError
from llmbuild.quantization.scheme import SCHEMES
from llmbuild.tasks.quantize import KIND
from tests.helpers.inspected import facts_of
from tests.helpers.reference_quant import quantize, read_weights
from tests.helpers.schemes import QUANTIZING

HIDDEN, INTERMEDIATE, VOCAB, LAYERS = 64, 96, 50, 2
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": HIDDEN,
    "intermediate_size": INTERMEDIATE,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_hidden_layers": LAYERS,
    "vocab_size": VOCAB,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
}


def tensors() -> dict[str, np.ndarray]:
    shapes: dict[str, tuple[int, ...]] = {
        "lm_head.weight": (VOCAB, HIDDEN),
        "model.embed_tokens.weight": (VOCAB, HIDDEN),
    }
    for i in range(LAYERS):
        layer = f"model.layers.{i}"
        shapes |= {
            f"{layer}.input_layernorm.weight": (HIDDEN,),
            f"{layer}.post_attention_layernorm.weight": (HIDDEN,),
            f"{layer}.mlp.gate_proj.weight": (INTERMEDIATE, HIDDEN),
            f"{layer}.mlp.up_proj.weight": (INTERMEDIATE, HIDDEN),
            f"{layer}.mlp.down_proj.weight": (HIDDEN, INTERMEDIATE),
            f"{layer}.self_attn.q_proj.weight": (HIDDEN, HIDDEN),
            f"{layer}.self_attn.k_proj.weight": (HIDDEN // 2, HIDDEN),
            f"{layer}.self_attn.v_proj.weight": (HIDDEN // 2, HIDDEN),
            f"{layer}.self_attn.o_proj.weight": (HIDDEN, HIDDEN),
        }
    shapes["model.norm.weight"] = (HIDDEN,)
    rng = np.random.default_rng(1)
    return {name: (rng.standard_normal(shape) * 0.02).astype(np.float16) for name, shape in shapes.items()}


def write_safetensors(path: Path, values: Mapping[str, np.ndarray]) -> None:
    """A safetensors file whose header keeps the order of `values`."""
    header: dict[str, Any] = {}
    offset = 0
    codes = {"float16": "F16", "float32": "F32"}
    for name, value in values.items():
        end = offset + value.nbytes
        header[name] = {"dtype": codes[value.dtype.name], "shape": value.shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(value.tobytes() for value in values.values()))


def write_checkpoint(directory: Path, values: Mapping[str, np.ndarray]) -> Path:
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(CONFIG))
    write_safetensors(directory / "model.safetensors", values)
    return directory


def run(
    checkpoint: Path, out: Path, scheme: str = "q4f16_1", adapter: Path | None = None, **hints: Json
) -> list[tuple[int, int, str]]:
    out.mkdir()
    progress: list[tuple[int, int, str]] = []
    params: dict[str, Json] = {
        "scheme": SCHEMES[scheme].to_json(),
        "model-type": None,
        "ignore-keys": [],
        "source-format": None,
        "method": "round",
        "float32": "bf16",
    }
    inputs = {"checkpoint": checkpoint, "facts": facts_of(checkpoint, adapter)}
    inputs |= {} if adapter is None else {"adapter": adapter}
    KIND.run(Job(params, inputs, hints, out, out, lambda done, total, unit="": progress.append((done, total, unit))))
    return progress


def test_the_weight_directory(tmp_path: Path) -> None:
    values = tensors()
    progress = run(write_checkpoint(tmp_path / "in", values), tmp_path / "out")
    stored, metadata = read_weights(tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "ndarray-cache.json",
        "params_shard_0.bin",
        "tensor-cache.json",
    ]
    assert list(stored)[:6] == [
        "lm_head.q_weight",
        "lm_head.q_scale",
        "model.embed_tokens.q_weight",
        "model.embed_tokens.q_scale",
        "model.layers.0.input_layernorm.weight",
        "model.layers.0.post_attention_layernorm.weight",
    ]
    prefix = "model.layers.1.self_attn"
    fused = np.concatenate([values[f"{prefix}.{name}_proj.weight"] for name in "qkv"])
    words, scales = quantize(fused, 4, 32, "float16")
    assert (stored[f"{prefix}.qkv_proj.q_weight"] == words).all()
    assert (stored[f"{prefix}.qkv_proj.q_scale"] == scales).all()
    assert metadata["ParamSize"] == len(stored)
    total = sum(value.nbytes for value in values.values())
    assert progress[-1] == (total, total, "bytes")


def test_an_index_decides_the_order(tmp_path: Path) -> None:
    values = tensors()
    names = list(values)
    rng = np.random.default_rng(2)
    shuffled = [names[i] for i in rng.permutation(len(names))]
    files = {name: f"model-{i % 3}.safetensors" for i, name in enumerate(shuffled)}
    directory = tmp_path / "in"
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(CONFIG))
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))
    for file in set(files.values()):
        # The header's order is another one than the index's, and does not matter.
        write_safetensors(directory / file, {name: values[name] for name in sorted(names) if files[name] == file})
    run(directory, tmp_path / "out", "q0f16")
    expected: list[str] = []
    for file in dict.fromkeys(files.values()):
        for source in (name for name in shuffled if files[name] == file):
            fused = re.sub(r"\.[qkv]_proj", ".qkv_proj", re.sub(r"\.(gate|up)_proj", ".gate_up_proj", source))
            if fused not in expected:
                expected.append(fused)
    assert list(read_weights(tmp_path / "out")[0]) == expected


@pytest.mark.parametrize("scheme", ["q4f16_1", "q4f32_1", "q0f32"])
def test_threads_change_no_byte(tmp_path: Path, scheme: str) -> None:
    checkpoint = write_checkpoint(tmp_path / "in", tensors())
    results = []
    for threads in (1, 5):
        out = tmp_path / f"out{threads}"
        run(checkpoint, out, scheme, threads=threads)
        results.append({path.name: path.read_bytes() for path in sorted(out.iterdir())})
    assert results[0] == results[1]


def test_a_lora_adapter_is_merged_first(tmp_path: Path) -> None:
    values = tensors()
    checkpoint = write_checkpoint(tmp_path / "in", values)
    name = "model.layers.0.self_attn.o_proj"
    rng = np.random.default_rng(3)
    low, high = (rng.standard_normal(shape).astype(np.float32) * 0.1 for shape in ((4, HIDDEN), (HIDDEN, 4)))
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["o_proj"], "bias": "none"}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    write_safetensors(
        adapter / "adapter_model.safetensors",
        {f"base_model.model.{name}.lora_A.weight": low, f"base_model.model.{name}.lora_B.weight": high},
    )
    run(checkpoint, tmp_path / "plain", "q0f16")
    run(checkpoint, tmp_path / "merged", "q0f16", adapter)
    plain, merged = read_weights(tmp_path / "plain")[0], read_weights(tmp_path / "merged")[0]
    assert list(plain) == list(merged)
    changed = [key for key in plain if (plain[key] != merged[key]).any()]
    assert changed == [f"{name}.weight"]
    wanted = values[f"{name}.weight"].astype(np.float32) + 2.0 * high @ low
    assert np.abs(merged[f"{name}.weight"].astype(np.float32) - wanted).max() < 1e-3


def test_nan_names_tensor_and_file(tmp_path: Path) -> None:
    values = tensors()
    values["model.layers.1.mlp.up_proj.weight"][5, 5] = np.nan
    with pytest.raises(InputError) as caught:
        run(write_checkpoint(tmp_path / "in", values), tmp_path / "out")
    assert "model.layers.1.mlp.up_proj.weight" in str(caught.value)
    assert "model.safetensors" in str(caught.value)


def test_a_configuration_of_another_model(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "in", tensors())
    (checkpoint / "config.json").write_text(json.dumps(CONFIG | {"vocab_size": VOCAB + 1}))
    with pytest.raises(InputError, match="shape mismatch"):
        run(checkpoint, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("scheme", QUANTIZING)
@pytest.mark.parametrize("variant", ["llama-tied", "gpt_neox", "qwen2", "qwen3", "mistral"])
def test_every_family_takes_every_scheme(tmp_path: Path, variant: str, scheme: str) -> None:
    pytest.importorskip("transformers")
    from tests.helpers.checkpoints import cached_checkpoint

    run(cached_checkpoint(variant), tmp_path / "out", scheme)
    stored, _ = read_weights(tmp_path / "out")
    packed = [name for name in stored if name.endswith(".q_weight")]
    assert bool(packed) is SCHEMES[scheme].quantized
    assert all(np.isfinite(value.astype(np.float32)).all() for value in stored.values() if value.dtype != np.uint32)
