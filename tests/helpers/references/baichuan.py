"""Baichuan 7B is Llama with q, k and v in one tensor; in Baichuan 2 the rows of the head are divided by their lengths."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.helpers.references.same import model_of, tensors_of


def model(config: Mapping[str, Any]) -> Any:
    return model_of("llama", config, num_key_value_heads=config["num_attention_heads"])


def tensors(config: Mapping[str, Any], model: Any) -> dict[str, Any]:
    import torch

    found = tensors_of(model)
    for name in [name for name in found if ".q_proj." in name]:
        parts = [found.pop(name.replace("q_proj", which)) for which in ("q_proj", "k_proj", "v_proj")]
        found[name.replace("q_proj", "W_pack")] = torch.cat(parts)
    if config["architectures"] == ["BaichuanForCausalLM"]:
        # The checkpoint has rows of any length, and the model computes with those of length 1.
        found["lm_head.weight"] = model.lm_head.weight.detach().clone()
        model.lm_head.weight.data = torch.nn.functional.normalize(model.lm_head.weight.data)
    return found
