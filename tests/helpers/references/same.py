"""Models of transformers that compute what code of checkpoints computes, for which transformers has no class."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from typing import Any

KEYS = {
    *(
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "vocab_size",
    ),
    *("max_position_embeddings", "tie_word_embeddings", "pad_token_id", "rms_norm_eps", "rope_theta", "rope_scaling"),
    "hidden_act",
}
"""Keys that mean the same in both configurations."""


def model_of(model_type: str, config: Mapping[str, Any], **others: Any) -> Any:
    """transformers' model of a type, with the sizes of a configuration and with other keys."""
    from transformers import AutoConfig, AutoModelForCausalLM

    keys = {name: config[name] for name in KEYS if name in config} | others
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **keys), attn_implementation="eager")


def tensors_of(model: Any, *renamed: tuple[str, str]) -> dict[str, Any]:
    """A model's tensors, without a tied head, and with parts of names replaced one after another."""
    found = {}
    for name, value in model.state_dict().items():
        if name == "lm_head.weight" and model.config.tie_word_embeddings:
            continue
        found[reduce(lambda text, pair: text.replace(*pair), renamed, name)] = value
    return found
