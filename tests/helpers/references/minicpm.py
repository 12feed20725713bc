"""MiniCPM is Granite with other names of its multipliers: residual branches by the root of the layers, scores as in Llama."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from tests.helpers.references.same import model_of, tensors_of


def model(config: Mapping[str, Any]) -> Any:
    scaling = config.get("rope_scaling")
    if scaling and scaling.get("rope_type") == "longrope":
        ratio = config["max_position_embeddings"] / scaling["original_max_position_embeddings"]
        scaling = scaling | {"factor": ratio}
    return model_of(
        "granite",
        config,
        tie_word_embeddings=config.get("tie_word_embeddings", True),
        attention_bias=config.get("attention_bias", False),
        rope_scaling=scaling,
        embedding_multiplier=config.get("scale_emb", 1),
        residual_multiplier=config.get("scale_depth", 1) / math.sqrt(config["num_hidden_layers"]),
        logits_scaling=config["hidden_size"] / config.get("dim_model_base", 1),
        attention_multiplier=(config["hidden_size"] // config["num_attention_heads"]) ** -0.5,
    )


def tensors(config: Mapping[str, Any], model: Any) -> dict[str, Any]:
    return tensors_of(model)
