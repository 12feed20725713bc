"""A checkpoint as GGUF, by the rules of llama.cpp's converter: names from gguf's own table, metadata and layouts by architecture.

It shares nothing with the reader, which goes the other way by a family's description.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from tests.helpers.gguf_files import llama3_factors
from tests.helpers.variants import reference_of

ARCHITECTURES: Mapping[str, str] = {
    **dict.fromkeys(("llama", "mistral", "internlm3", "iquestcoder"), "llama"),
    "gpt_neox": "gptneox",
    "phi": "phi2",
    "hunyuan_v1_dense": "hunyuan-dense",
    "glm": "chatglm",
    "cohere": "command-r",
    "gemma3_text": "gemma3",
    "ministral3": "mistral3",
    "olmo3": "olmo2",
    "gpt_bigcode": "starcoder",
}
"""By model_type, where GGUF has another name."""

PERMUTED = ("llama", "mistral3", "granite", "arcee", "smollm3", "olmo", "minicpm", "internlm2", "baichuan")
"""Architectures whose RoPE turns neighbours in llama.cpp, and halves of a head in transformers."""

NORMS_PLUS_1 = ("gemma", "gemma2", "gemma3", "nemotron")

LAYER_NORM_EPS = ("layer_norm_eps", "layer_norm_epsilon", "norm_epsilon", "norm_eps")

Config = Mapping[str, Any]
Tensors = Iterator[tuple[str, np.ndarray]]


def convert(
    source: Path,
    path: Path,
    *,
    quantization: str = "F32",
    like: str | None = None,
    put: Mapping[str, Any] | None = None,
) -> Path:
    """Write the GGUF file of a checkpoint without a tokenizer; matrices are stored as `quantization`.

    The file is one of architecture `like`, if that is another one with the same names, and has the keys of `put` besides.
    """
    from safetensors.numpy import load_file

    config = whole_config(source)
    name = ARCHITECTURES.get(config["model_type"], config["model_type"])
    writer = gguf.GGUFWriter(path, like or name)
    for key, value in (*_metadata(name, config), *(put or {}).items()):
        add_value(writer, f"{like or name}.{key}", value)
    kind = gguf.GGMLQuantizationType[quantization]
    architecture = next(one for one, text in gguf.MODEL_ARCH_NAMES.items() if text == name)
    names = gguf.get_tensor_name_map(architecture, config["num_hidden_layers"])
    stored = load_file(source / "model.safetensors")
    for tensor, value in _tensors(name, config, stored):
        target = names.get_name(tensor, try_suffixes=(".weight", ".bias")) or tensor
        if value.ndim != 2 or "norm" in target or quantization == "F32":
            writer.add_tensor(target, np.ascontiguousarray(value))
        else:
            writer.add_tensor(target, gguf.quantize(np.ascontiguousarray(value), kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def whole_config(source: Path) -> dict[str, Any]:
    """config.json with the defaults of transformers' class."""
    from transformers import AutoConfig

    own: dict[str, Any] = json.loads((source / "config.json").read_text())
    if reference_of(own) is not None:
        return {**own, "rope_parameters": {"rope_theta": own.get("rope_theta", 10000.0)}}
    config = AutoConfig.from_pretrained(source)
    found: dict[str, Any] = json.loads(json.dumps(config.to_dict(), default=str))
    for name in ("hidden_size", "num_hidden_layers", "num_attention_heads", "max_position_embeddings"):
        found.setdefault(name, getattr(config, name))
    found.setdefault("intermediate_size", found.get("n_inner") or 4 * found["hidden_size"])
    return found


def add_value(writer: Any, key: str, value: Any) -> None:
    """Add a value with the type that the converter gives one of its kind."""
    add: Callable[[str, Any], None]
    if isinstance(value, bool):
        add = writer.add_bool
    elif isinstance(value, int):
        add = writer.add_uint32
    elif isinstance(value, float):
        add = writer.add_float32
    else:
        add = writer.add_string if isinstance(value, str) else writer.add_array
    add(key, value)


def _head(c: Config) -> int:
    return int(c.get("head_dim") or c["hidden_size"] // c["num_attention_heads"])


def _metadata(name: str, c: Config) -> Iterator[tuple[str, Any]]:
    yield "block_count", c["num_hidden_layers"]
    yield "context_length", c["max_position_embeddings"]
    yield "embedding_length", c["hidden_size"]
    yield "feed_forward_length", c["intermediate_size"]
    yield "attention.head_count", c["num_attention_heads"]
    if c.get("num_key_value_heads") is not None:
        yield "attention.head_count_kv", c["num_key_value_heads"]
    if c.get("head_dim") is not None and name not in ("granite", "phi2", "phi3", "stablelm"):
        yield "attention.key_length", _head(c)
        yield "attention.value_length", _head(c)
    if (eps := c.get("rms_norm_eps", c.get("norm_eps"))) is not None and name != "orion":
        yield "attention.layer_norm_rms_epsilon", eps
    if name == "orion":
        yield "attention.layer_norm_epsilon", c["rms_norm_eps"]
    if (eps := next((c[key] for key in LAYER_NORM_EPS if c.get(key) is not None), None)) is not None:
        yield "attention.layer_norm_epsilon", eps
    rope = c.get("rope_parameters") or {}
    yield from _rope(name, c, rope.get("full_attention", rope))
    yield from _OWN.get(name, lambda _: iter(()))(c)


def _rope(name: str, c: Config, rope: Config) -> Iterator[tuple[str, Any]]:
    if not rope:
        return
    theta = rope.get("rope_theta", 10000.0)
    match rope.get("rope_type"):
        case "linear":
            yield "rope.scaling.type", "linear"
            yield "rope.scaling.factor", float(rope["factor"])
        case "yarn":
            yield "rope.scaling.type", "yarn"
            yield "rope.scaling.factor", float(rope["factor"])
            yield "rope.scaling.original_context_length", rope["original_max_position_embeddings"]
            for key, its in (
                ("beta_fast", "beta_fast"),
                ("beta_slow", "beta_slow"),
                ("attn_factor", "attention_factor"),
            ):
                if rope.get(its) is not None:
                    yield f"rope.scaling.yarn_{key}", float(rope[its])
        case "dynamic":
            # Hunyuan's, which does not depend on the length.
            theta *= rope["alpha"] ** (_head(c) / (_head(c) - 2))
            yield "rope.scaling.type", "none"
            yield "rope.scaling.factor", 1.0
    yield "rope.freq_base", float(theta)
    share = rope.get("partial_rotary_factor", c.get("rotary_pct"))
    if name not in ("qwen2", "qwen3", "starcoder2", "exaone4", "ernie4_5", "seed_oss", "olmo", "olmo2", "command-r"):
        yield "rope.dimension_count", int(_head(c) * (1.0 if share is None else share))


def _pattern(c: Config) -> list[bool]:
    return [kind == "sliding_attention" for kind in c["layer_types"]]


def _gemma2(c: Config) -> Iterator[tuple[str, Any]]:
    yield "attn_logit_softcapping", float(c["attn_logit_softcapping"])
    yield "final_logit_softcapping", float(c["final_logit_softcapping"])
    yield "attention.sliding_window", c["sliding_window"]


def _gemma3(c: Config) -> Iterator[tuple[str, Any]]:
    yield "attention.sliding_window", c["sliding_window"]
    yield "rope.freq_base_swa", float(c["rope_parameters"]["sliding_attention"]["rope_theta"])


def _phi3(c: Config) -> Iterator[tuple[str, Any]]:
    longest, original = c["max_position_embeddings"], c["original_max_position_embeddings"]
    yield "rope.scaling.original_context_length", original
    yield "attention.sliding_window", c["sliding_window"] or 0
    if "long_factor" in c["rope_parameters"]:
        yield "rope.scaling.attn_factor", math.sqrt(1 + math.log(longest / original) / math.log(original))


def _ministral3(c: Config) -> Iterator[tuple[str, Any]]:
    if c["model_type"] == "ministral3":
        yield "rope.scaling.yarn_log_multiplier", float(c["rope_parameters"]["mscale_all_dim"])
        yield "attention.temperature_scale", float(c["rope_parameters"]["llama_4_scaling_beta"])


def _minicpm(c: Config) -> Iterator[tuple[str, Any]]:
    yield "embedding_scale", float(c["scale_emb"])
    yield "residual_scale", c["scale_depth"] / math.sqrt(c["num_hidden_layers"])
    yield "logit_scale", c["hidden_size"] / c["dim_model_base"]


def _granite(c: Config) -> Iterator[tuple[str, Any]]:
    yield "attention.scale", float(c["attention_multiplier"])
    yield "embedding_scale", float(c["embedding_multiplier"])
    yield "residual_scale", float(c["residual_multiplier"])
    yield "logit_scale", float(c["logits_scaling"])


def _cohere2(c: Config) -> Iterator[tuple[str, Any]]:
    yield "logit_scale", float(c["logit_scale"])
    yield "attention.sliding_window", c["sliding_window"]
    yield "rope.scaling.type", "none"


def _windows(c: Config) -> Iterator[tuple[str, Any]]:
    if c.get("sliding_window") is not None:
        yield "attention.sliding_window", c["sliding_window"]
        yield "attention.sliding_window_pattern", _pattern(c)


def _mistral(c: Config) -> Iterator[tuple[str, Any]]:
    if c["model_type"] == "mistral" and c.get("sliding_window") is not None:
        yield "attention.sliding_window", c["sliding_window"]


_OWN: Mapping[str, Callable[[Config], Iterator[tuple[str, Any]]]] = {
    "llama": _mistral,
    "gptneox": lambda c: iter([("use_parallel_residual", c["use_parallel_residual"])]),
    # It is what the converter says of a config.json without the key, and llama.cpp goes by the norm that is there or not.
    "stablelm": lambda _: iter([("use_parallel_residual", True)]),
    "starcoder": lambda _: iter([("attention.head_count_kv", 1)]),
    "gemma2": _gemma2,
    "gemma3": _gemma3,
    "minicpm": _minicpm,
    **dict.fromkeys(("orion", "baichuan"), lambda _: iter([("tensor_data_layout", "Meta AI original pth")])),
    "phi3": _phi3,
    "granite": _granite,
    "command-r": lambda c: iter([("logit_scale", c["logit_scale"]), ("rope.scaling.type", "none")]),
    "olmo": lambda c: iter([("attention.clamp_kqv", float(c["clip_qkv"]))] if c["clip_qkv"] else []),
    "olmo2": _windows,
    "mistral3": _ministral3,
    "cohere2": _cohere2,
    "exaone4": _windows,
}


def _tensors(name: str, c: Config, stored: Mapping[str, np.ndarray]) -> Tensors:
    """The tensors under names that gguf's table has, in llama.cpp's layouts."""
    heads, groups = c["num_attention_heads"], c.get("num_key_value_heads") or c["num_attention_heads"]
    for tensor, value in stored.items():
        module = tensor.rpartition(".")[0]
        if ".q_layernorm.norms." in tensor or ".k_layernorm.norms." in tensor:
            start, _, index = module.rpartition(".norms.")
            if index == "0":
                count = heads if ".q_" in tensor else groups
                yield f"{start}.weight", np.stack([stored[f"{start}.norms.{each}.weight"] for each in range(count)])
        elif name in NORMS_PLUS_1 and tensor.endswith("norm.weight"):
            yield tensor, value + np.float32(1)
        elif name in PERMUTED and module.endswith(("q_proj", "k_proj")):
            yield tensor, neighbours(value, heads if module.endswith("q_proj") else groups)
        elif name == "gpt2" and value.ndim == 2 and module.endswith(("c_attn", "c_proj", "c_fc")):
            yield tensor, value.T
        elif module.endswith("W_pack"):
            for part, rows in zip("qkv", np.split(value, 3), strict=True):
                yield (
                    f"{module.removesuffix('W_pack')}{part}_proj.weight",
                    rows if part == "v" else neighbours(rows, heads),
                )
        elif module.endswith("attention.wqkv"):
            yield from _of_groups(module.removesuffix("wqkv"), value, heads, groups)
        elif module.endswith("attention.query_key_value"):
            parts = value.reshape(heads, 3, -1, *value.shape[1:])
            yield tensor, np.concatenate([parts[:, part].reshape(-1, *value.shape[1:]) for part in range(3)])
        elif tensor.startswith("lm_head.") and c.get("tie_word_embeddings"):
            continue
        else:
            yield tensor, value
    rope = c.get("rope_parameters") or {}
    if rope.get("rope_type") == "llama3":
        yield "rope_freqs.weight", llama3_factors(rope, rope["rope_theta"], _head(c))
    if "long_factor" in rope:
        yield "rope_factors_long.weight", np.array(rope["long_factor"], np.float32)
        yield "rope_factors_short.weight", np.array(rope["short_factor"], np.float32)


def _of_groups(start: str, value: np.ndarray, heads: int, groups: int) -> Tensors:
    """InternLM 2's, where each key-value head stands behind its queries."""
    parts = value.reshape(groups, heads // groups + 2, -1, value.shape[-1])
    rows = {"wq": parts[:, :-2], "wk": parts[:, -2:-1], "wv": parts[:, -1:]}
    for name, part in rows.items():
        flat = part.reshape(-1, value.shape[-1])
        yield f"{start}{name}.weight", flat if name == "wv" else neighbours(flat, heads if name == "wq" else groups)


def neighbours(value: np.ndarray, heads: int) -> np.ndarray:
    """Rows of heads with the two that RoPE turns together next to each other, from half a head apart."""
    return value.reshape(heads, 2, -1, *value.shape[1:]).swapaxes(1, 2).reshape(value.shape)
