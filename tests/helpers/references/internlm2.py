"""InternLM 2 is Llama, with q, k and v of each key-value head after one another: its queries, its key, its value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.helpers.references.same import model_of, tensors_of

NAMES = (
    ("embed_tokens", "tok_embeddings"),
    ("self_attn.o_proj", "attention.wo"),
    ("mlp.gate_proj", "feed_forward.w1"),
    ("mlp.up_proj", "feed_forward.w3"),
    ("mlp.down_proj", "feed_forward.w2"),
    ("input_layernorm", "attention_norm"),
    ("post_attention_layernorm", "ffn_norm"),
    ("lm_head", "output"),
)


def model(config: Mapping[str, Any]) -> Any:
    return model_of("llama", config, attention_bias=config.get("bias", True))


def tensors(config: Mapping[str, Any], model: Any) -> dict[str, Any]:
    import torch

    found = tensors_of(model, *NAMES)
    groups = config["num_key_value_heads"]
    for name in [name for name in found if ".q_proj." in name]:
        parts = [found.pop(name.replace("q_proj", which)) for which in ("q_proj", "k_proj", "v_proj")]
        by_group = torch.cat([part.reshape(groups, -1, *part.shape[1:]) for part in parts], dim=1)
        found[name.replace("self_attn.q_proj", "attention.wqkv")] = by_group.flatten(0, 1)
    return found
