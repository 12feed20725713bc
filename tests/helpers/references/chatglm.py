"""ChatGLM 2 and 3 are transformers' GLM, with q, k and v in one tensor, biases elsewhere, and a ratio in the RoPE."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.helpers.references.same import model_of, tensors_of

NAMES = (
    ("model.embed_tokens", "transformer.embedding.word_embeddings"),
    ("model.layers", "transformer.encoder.layers"),
    ("model.norm", "transformer.encoder.final_layernorm"),
    ("lm_head", "transformer.output_layer"),
    ("self_attn.o_proj", "self_attention.dense"),
    ("self_attn", "self_attention"),
    ("gate_up_proj", "dense_h_to_4h"),
    ("down_proj", "dense_4h_to_h"),
)


def model(config: Mapping[str, Any]) -> Any:
    import torch

    ratio = config.get("rope_ratio", 1)
    positions = "chatglm2" in config.get("_name_or_path", "")
    biases = config.get("add_bias_linear", False)
    shared = config.get("multi_query_attention", False)
    found = model_of(
        "glm",
        config,
        intermediate_size=config["ffn_hidden_size"],
        num_hidden_layers=config["num_layers"],
        num_key_value_heads=config.get("multi_query_group_num", 1) if shared else config["num_attention_heads"],
        vocab_size=config["padded_vocab_size"],
        max_position_embeddings=config["seq_length"],
        head_dim=config["kv_channels"],
        rms_norm_eps=config.get("layernorm_epsilon", 1e-5),
        attention_bias=biases or config.get("add_qkv_bias", False),
        rope_theta=10000 if positions else 10000 * ratio,
        rope_scaling={"rope_type": "linear", "factor": ratio} if positions else None,
        tie_word_embeddings=False,
        partial_rotary_factor=0.5,
    )
    for layer in found.model.layers if biases else ():
        for parent, name in ((layer.self_attn, "o_proj"), (layer.mlp, "gate_up_proj"), (layer.mlp, "down_proj")):
            linear = getattr(parent, name)
            setattr(parent, name, torch.nn.Linear(linear.in_features, linear.out_features))
    return found


def tensors(config: Mapping[str, Any], model: Any) -> dict[str, Any]:
    import torch

    found = tensors_of(model, *NAMES)
    size = config["kv_channels"]
    for name in [name for name in found if ".q_proj." in name]:
        parts = [found.pop(name.replace("q_proj", which)) for which in ("q_proj", "k_proj", "v_proj")]
        if not config.get("multi_query_attention", False):
            # Head by head: its query, its key, its value.
            by_head = torch.cat([part.reshape(-1, 1, size, *part.shape[1:]) for part in parts], dim=1)
            parts = [by_head.flatten(0, 2)]
        found[name.replace("q_proj", "query_key_value")] = torch.cat(parts)
    return found
