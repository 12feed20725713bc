"""References for built weights: a transformers model that holds what is stored, and attention with a rolling cache."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tests.helpers.reference_quant import dequantize, read_weights


def load_stored_into(model: Any, directory: Path, config: Mapping[str, Any], three_bits: Collection[str] = ()) -> None:
    """Replace every parameter of a transformers model by the stored one, dequantized and split as the checkpoint had it.

    Asserts that each parameter of the model is covered (a tied head by its embedding) and each stored one is used.  `three_bits`
    are the modules whose weights have so many, which shapes do not tell from 4.
    """
    import torch

    stored, _ = read_weights(directory)
    wanted = dict(model.named_parameters())
    covered = set()
    for name, value in _whole_weights(stored, wanted, three_bits).items():
        for part, array in _split(name, value, wanted, config).items():
            parameter = wanted[part]
            assert tuple(parameter.shape) == array.shape, part
            with torch.no_grad():
                parameter.copy_(torch.from_numpy(np.ascontiguousarray(array)))
            covered.add(part)
    assert set(wanted) - covered == set()


def _whole_weights(
    stored: Mapping[str, np.ndarray], wanted: Mapping[str, Any], three_bits: Collection[str]
) -> dict[str, np.ndarray]:
    """Stored tensors as float32 weights [outputs, inputs]; packed ones (groups of 32, 40 of 3 bits) are unpacked."""
    weights = {}
    for name, value in stored.items():
        if name.endswith(".q_scale"):
            continue
        if name.endswith(".q_weight"):
            base = name.removesuffix(".q_weight")
            scale = stored[f"{base}.q_scale"]
            inputs = _inputs(base, wanted)
            found = (3, 40) if base in three_bits else (4, 32) if value.shape[1] // scale.shape[1] == 4 else (8, 32)
            weights[f"{base}.weight"] = dequantize(value, scale, *found, inputs)
        else:
            weights[name] = value
    return {name: np.asarray(value, dtype=np.float32) for name, value in weights.items()}


def _inputs(base: str, wanted: Mapping[str, Any]) -> int:
    """The inputs of a module's weight: those of the model's own, or of the first of those that it is fused of."""
    module, _, last = base.rpartition(".")
    parts = {"qkv_proj": "q_proj", "c_attn": "q_proj", "gate_up_proj": "gate_proj"}
    names = (f"{base}.weight", f"{module}.{parts.get(last)}.weight", "lm_head.weight")
    return next(int(wanted[name].shape[1]) for name in names if name in wanted)


def _split(name: str, value: np.ndarray, wanted: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """A fused parameter as the checkpoint's parts, each cut to the width that the model has."""
    base, kind = name.rsplit(".", 1)
    if base.endswith(("self_attn.qkv_proj", "self_attn.c_attn")):
        parts = [f"{base.rsplit('.', 1)[0]}.{part}.{kind}" for part in ("q_proj", "k_proj", "v_proj")]
    elif base.endswith("mlp.gate_up_proj"):
        parts = [f"{base.rsplit('.', 1)[0]}.{part}.{kind}" for part in ("gate_proj", "up_proj")]
    elif base.endswith("attention.query_key_value"):
        heads = config["num_attention_heads"]
        by_kind = value.reshape(3, heads, -1, *value.shape[1:])
        value = np.swapaxes(by_kind, 0, 1).reshape(value.shape)
        parts = [name]
    elif base == "embed_out" and name not in wanted:
        # The checkpoint's name of GPT-NeoX's head; newer releases of transformers call the module lm_head.
        parts = [f"lm_head.{kind}"]
    else:
        parts = [name]
    sizes = [wanted[part].shape[0] for part in parts]
    assert sum(sizes) == value.shape[0], name
    pieces = np.split(value, np.cumsum(sizes)[:-1], axis=0)
    return {
        part: piece if piece.ndim == 1 else piece[:, : wanted[part].shape[1]]
        for part, piece in zip(parts, pieces, strict=True)
    }


def windowed_logits(model: Any, tokens: list[int], *, window: int, sink: int) -> np.ndarray:
    """Logits [tokens, vocab] of a Mistral model whose cache keeps `sink` first tokens and the latest up to `window` in all.

    Each token attends to what the cache holds before it and to itself, with positions counted inside the cache, as in
    "Efficient Streaming Language Models with Attention Sinks" (Xiao et al., 2023).
    """
    import torch

    config = model.config
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    theta = config.rope_parameters["rope_theta"]
    with torch.no_grad():
        hidden = model.model.embed_tokens(torch.tensor(tokens))
        for layer in model.model.layers:
            attention = layer.self_attn
            normed = layer.input_layernorm(hidden)
            q = attention.q_proj(normed).reshape(len(tokens), heads, -1)
            k = attention.k_proj(normed).reshape(len(tokens), kv_heads, -1)
            v = attention.v_proj(normed).reshape(len(tokens), kv_heads, -1)
            mixed = []
            for position in range(len(tokens)):
                held = list(range(position))
                if position > window:
                    held = held[:sink] + held[position - (window - sink) :]
                seen = [*held, position]
                keys = _rotate(k[seen], torch.arange(len(seen)), theta).repeat_interleave(heads // kv_heads, dim=1)
                values = v[seen].repeat_interleave(heads // kv_heads, dim=1)
                query = _rotate(q[position : position + 1], torch.tensor([len(seen) - 1]), theta)[0]
                scores = torch.einsum("hd,thd->ht", query, keys) / math.sqrt(query.shape[-1])
                mixed.append(torch.einsum("ht,thd->hd", scores.softmax(dim=-1), values).reshape(-1))
            hidden = hidden + attention.o_proj(torch.stack(mixed))
            hidden = hidden + layer.mlp(layer.post_attention_layernorm(hidden))
        logits: np.ndarray = model.lm_head(model.model.norm(hidden)).numpy()
    return logits


def _rotate(x: Any, positions: Any, theta: float) -> Any:
    """Rotary embedding of x [tokens, heads, dim], halves paired as in Llama."""
    import torch

    half = x.shape[-1] // 2
    angles = positions[:, None].float() / theta ** (torch.arange(half).float() / half)
    cos, sin = angles.cos()[:, None, :], angles.sin()[:, None, :]
    left, right = x[..., :half], x[..., half:]
    return torch.cat([left * cos - right * sin, right * cos + left * sin], dim=-1)


def make_adapter(checkpoint: Path, directory: Path, seed: int = 3) -> Any:
    """Write a random PEFT LoRA adapter for a Llama checkpoint; returns the reference model with it merged by PEFT."""
    import torch
    from peft import LoraConfig, get_peft_model

    from tests.helpers.checkpoints import reference_model

    torch.manual_seed(seed)
    settings = LoraConfig(r=4, lora_alpha=16, target_modules=["q_proj", "v_proj", "down_proj"], lora_dropout=0.0)
    model = get_peft_model(reference_model(checkpoint), settings)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn_like(parameter) * 0.05)
    model.save_pretrained(directory)
    return model.merge_and_unload().eval()
