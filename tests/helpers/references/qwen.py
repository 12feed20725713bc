"""Qwen 1 is Qwen 2 with q, k and v in one tensor, and with half of its intermediate_size; w2 is the gate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.helpers.references.same import model_of, tensors_of

NAMES = (
    ("model.embed_tokens", "transformer.wte"),
    ("model.layers", "transformer.h"),
    ("model.norm", "transformer.ln_f"),
    ("self_attn.o_proj", "attn.c_proj"),
    ("self_attn", "attn"),
    ("mlp.up_proj", "mlp.w1"),
    ("mlp.gate_proj", "mlp.w2"),
    ("mlp.down_proj", "mlp.c_proj"),
    ("input_layernorm", "ln_1"),
    ("post_attention_layernorm", "ln_2"),
)


def model(config: Mapping[str, Any]) -> Any:
    import torch

    found = model_of(
        "qwen2",
        config,
        intermediate_size=config["intermediate_size"] // 2,
        num_key_value_heads=config["num_attention_heads"],
        rms_norm_eps=config.get("layer_norm_epsilon", 1e-6),
        rope_theta=config.get("rotary_emb_base", 10000),
    )
    for layer in () if config.get("no_bias", True) else found.model.layers:
        for parent in (layer.self_attn, layer.mlp):
            for name in ("o_proj", "gate_proj", "up_proj", "down_proj"):
                if (linear := getattr(parent, name, None)) is not None:
                    setattr(parent, name, torch.nn.Linear(linear.in_features, linear.out_features))
    return found


def tensors(config: Mapping[str, Any], model: Any) -> dict[str, Any]:
    import torch

    found = tensors_of(model, *NAMES)
    for name in [name for name in found if ".q_proj." in name]:
        parts = [found.pop(name.replace("q_proj", which)) for which in ("q_proj", "k_proj", "v_proj")]
        found[name.replace("q_proj", "c_attn")] = torch.cat(parts)
    return found
