"""InternLM is Llama with biases in attention, and its `rotary` of type dynamic is transformers' with a factor of 1."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.helpers.references.same import model_of, tensors_of


def model(config: Mapping[str, Any]) -> Any:
    rotary = config.get("rotary", {"base": 10000, "type": "dynamic"})
    scaling = {"rope_type": "dynamic", "factor": rotary.get("scaling_factor", 1.0)}
    return model_of(
        "llama",
        config,
        attention_bias=config.get("bias", True),
        num_key_value_heads=config["num_attention_heads"],
        rope_theta=rotary["base"],
        rope_scaling=scaling if rotary["type"] == "dynamic" else None,
    )


def tensors(config: Mapping[str, Any], model: Any) -> dict[str, Any]:
    return tensors_of(model)
