"""Orion is Llama with a LayerNorm in the place of each RMSNorm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.helpers.references.same import model_of, tensors_of


def model(config: Mapping[str, Any]) -> Any:
    import torch

    found = model_of("llama", config, attention_bias=config.get("attention_bias", False))
    for parent in (found.model, *found.model.layers):
        for name in [name for name, _ in parent.named_children()]:
            if name.endswith("norm"):
                setattr(parent, name, torch.nn.LayerNorm(config["hidden_size"], eps=config.get("rms_norm_eps", 1e-5)))
    return found


def tensors(config: Mapping[str, Any], model: Any) -> dict[str, Any]:
    return tensors_of(model)
