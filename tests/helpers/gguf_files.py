"""Makers of GGUF files from the tiny checkpoints, doing what llama.cpp's converter does to each architecture."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from llmbuild.checkpoints.tensor import TensorInfo
from llmbuild.models.architecture import DecoderFamily
from llmbuild.models.gguf import config as of_gguf
from llmbuild.models.gguf.known import choose
from llmbuild.models.gguf.rope import Factors
from tests.helpers.checkpoints import cached_checkpoint

_LAYER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "attention.query_key_value": "attn_qkv",
    "attention.dense": "attn_output",
    "mlp.dense_h_to_4h": "ffn_up",
    "mlp.dense_4h_to_h": "ffn_down",
}
_TOP = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "gpt_neox.embed_in": "token_embd",
    "gpt_neox.final_layer_norm": "output_norm",
    "embed_out": "output",
}


def make_config(
    metadata: Mapping[str, Any],
    tensors: Mapping[str, TensorInfo],
    factors: Factors,
    path: Path,
    known: DecoderFamily | None = None,
) -> dict[str, Any]:
    """config.json of a file with this metadata, whose family is chosen as when a file is opened."""
    return of_gguf.make_config(choose(metadata, tensors, path, known), metadata, tensors, factors)


def make_gguf(path: Path, variant: str, *, quantization: str = "F32", **arguments: Any) -> Path:
    """Write the GGUF file of a variant; matrices are stored as `quantization` (F32, F16, BF16, Q4_0 … Q8_0)."""
    import gguf
    from safetensors.numpy import load_file

    source = cached_checkpoint(variant, **arguments)
    config = json.loads((source / "config.json").read_text())
    architecture = {"mistral": "llama", "gpt_neox": "gptneox"}.get(config["model_type"], config["model_type"])
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(path, architecture)
    _write_config(writer, config)
    _write_tokenizer(writer, source)
    kind = gguf.GGMLQuantizationType[quantization]
    for name, stored in load_file(source / "model.safetensors").items():
        target = _target(name)
        if target is None:
            continue
        value = _converted(architecture, target, stored, config)
        if value.ndim == 2 and kind is not gguf.GGMLQuantizationType.F32:
            writer.add_tensor(target, gguf.quantize(value, kind), raw_dtype=kind)
        else:
            writer.add_tensor(target, value)
    scaling = config.get("rope_scaling") or {}
    if scaling.get("rope_type") == "llama3":
        head = config["hidden_size"] // config["num_attention_heads"]
        writer.add_tensor("rope_freqs.weight", llama3_factors(scaling, config["rope_theta"], head))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def llama3_factors(scaling: dict[str, Any], theta: float, head: int) -> np.ndarray:
    """The divisors of the rotary frequencies [head / 2], by the definition of Llama 3.1's reference code."""
    factor, low, high = scaling["factor"], scaling["low_freq_factor"], scaling["high_freq_factor"]
    context = scaling["original_max_position_embeddings"]
    factors = []
    for frequency in 1.0 / theta ** (np.arange(0, head, 2) / head):
        wavelength = 2 * np.pi / frequency
        if wavelength < context / high:
            factors.append(1.0)
        elif wavelength > context / low:
            factors.append(factor)
        else:
            smooth = (context / wavelength - low) / (high - low)
            factors.append(1 / ((1 - smooth) / factor + smooth))
    return np.array(factors, np.float32)


def _target(name: str) -> str | None:
    stem, _, suffix = name.rpartition(".")
    if stem in _TOP:
        return f"{_TOP[stem]}.{suffix}"
    _, _, rest = stem.partition(".layers.")
    layer, _, part = rest.partition(".")
    return f"blk.{layer}.{_LAYER[part]}.{suffix}" if part in _LAYER else None


def _converted(architecture: str, target: str, value: np.ndarray, config: dict[str, Any]) -> np.ndarray:
    heads = config["num_attention_heads"]
    if architecture == "llama" and ".attn_q." in target:
        return _neighbours(value, heads)
    if architecture == "llama" and ".attn_k." in target:
        return _neighbours(value, config["num_key_value_heads"])
    if ".attn_qkv." in target:
        parts = value.reshape(heads, 3, -1, *value.shape[1:])
        return np.concatenate([parts[:, i].reshape(-1, *value.shape[1:]) for i in range(3)])
    return value


def _neighbours(value: np.ndarray, heads: int) -> np.ndarray:
    return value.reshape(heads, 2, -1, *value.shape[1:]).swapaxes(1, 2).reshape(value.shape)


def _write_config(writer: Any, config: dict[str, Any]) -> None:
    heads = config["num_attention_heads"]
    head = config.get("head_dim", config["hidden_size"] // heads)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_head_count(heads)
    if config["model_type"] == "gpt_neox":
        writer.add_rope_dimension_count(int(config["rotary_pct"] * head))
        writer.add_layer_norm_eps(config["layer_norm_eps"])
        writer.add_parallel_residual(config["use_parallel_residual"])
        return
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_theta"])
    if "head_dim" in config:
        writer.add_key_length(head)
        writer.add_value_length(head)
    if config["model_type"] == "mistral":
        writer.add_sliding_window(config["sliding_window"])
    scaling = config.get("rope_scaling") or {}
    if scaling.get("type") == "linear":
        import gguf

        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(scaling["factor"])


def _write_tokenizer(writer: Any, source: Path) -> None:
    tokenizer = json.loads((source / "tokenizer.json").read_text())
    model = tokenizer["model"]
    special = {token["content"] for token in tokenizer["added_tokens"]}
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    sentencepiece = model["byte_fallback"]
    kinds = [3 if token in special else 6 if sentencepiece and token.startswith("<0x") else 1 for token in tokens]
    writer.add_tokenizer_model("llama" if sentencepiece else "gpt2")
    writer.add_tokenizer_pre("default" if sentencepiece else "gpt-2")
    rows = json.loads((source / "config.json").read_text())["vocab_size"]
    writer.add_token_list([*tokens, *(f"[PAD{index}]" for index in range(len(tokens), rows))])
    writer.add_token_types([*kinds, *[5] * (rows - len(tokens))])
    if sentencepiece:
        rank = {"".join(pair): -float(index + 1) for index, pair in enumerate(model["merges"])}
        writer.add_token_scores([*(rank.get(token, -1e4) for token in tokens), *[-1e4] * (rows - len(tokens))])
    else:
        writer.add_token_merges([" ".join(pair) for pair in model["merges"]])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(0)
    writer.add_add_bos_token(False)
    writer.add_chat_template(json.loads((source / "tokenizer_config.json").read_text())["chat_template"])


def write_gguf_parts(whole: Path, path: Path, **options: Any) -> None:
    """Write a GGUF file again in parts beside `path`, whose directory is made: with gguf's writer, which takes `options`, from
    what its reader finds."""
    import gguf

    path.parent.mkdir()
    reader = gguf.GGUFReader(whole)
    architecture = reader.get_field("general.architecture")
    assert architecture is not None
    writer = gguf.GGUFWriter(path, architecture.contents(), **options)
    for name, field in reader.fields.items():
        if not name.startswith("GGUF.") and name != "general.architecture":
            element = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(name, field.contents(), field.types[0], element)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, np.array(tensor.data), raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
