"""Microsoft's first Phi is transformers' with q, k and v in one tensor, and with names and keys of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.helpers.references.same import model_of, tensors_of

KEYS = {
    "n_embd": "hidden_size",
    "n_inner": "intermediate_size",
    "n_layer": "num_hidden_layers",
    "n_head": "num_attention_heads",
    "n_head_kv": "num_key_value_heads",
    "n_positions": "max_position_embeddings",
    "layer_norm_epsilon": "layer_norm_eps",
    "activation_function": "hidden_act",
}
NAMES = (
    ("model.embed_tokens", "transformer.embd.wte"),
    ("model.layers", "transformer.h"),
    ("model.final_layernorm", "lm_head.ln"),
    ("input_layernorm", "ln"),
    ("self_attn.dense", "mixer.out_proj"),
)


def model(config: Mapping[str, Any]) -> Any:
    keys = {ours: config[name] for name, ours in KEYS.items() if config.get(name) is not None}
    keys.setdefault("intermediate_size", 4 * config["n_embd"])
    share = config["rotary_dim"] * config["n_head"] / config["n_embd"]
    return model_of("phi", config, partial_rotary_factor=share, **keys)


def tensors(config: Mapping[str, Any], model: Any) -> dict[str, Any]:
    import torch

    found = tensors_of(model, *NAMES)
    for name in [name for name in found if ".q_proj." in name]:
        parts = [found.pop(name.replace("q_proj", which)) for which in ("q_proj", "k_proj", "v_proj")]
        found[name.replace("self_attn.q_proj", "mixer.Wqkv")] = torch.cat(parts)
    for kind in ("weight", "bias"):
        found[f"lm_head.linear.{kind}"] = found.pop(f"lm_head.{kind}")
    return found
