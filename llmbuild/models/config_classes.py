"""What transformers' configuration classes say of keys that a config.json leaves out, as data.

Sizes that the tensors show (hidden size, inner size, layers, heads, vocabulary) have no default here: they must be there, as a
default would only make another error of a missing key.  A test holds all of it against the installed classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from llmbuild.canonical import Json


@dataclass(frozen=True, slots=True)
class ConfigClass:
    """`defaults` are the optional keys that the family reads; those in `nullable` may be null.  A default of None
    is a value that follows from others.

    `renamed` are names that the class takes for others.  `theta` and `partial` are the keys of the RoPE base and of the rotated
    share beside `rope_parameters`; a class without `partial` rotates whole heads.
    """

    name: str
    family: str
    defaults: Mapping[str, Json]
    nullable: frozenset[str]
    renamed: Mapping[str, str] = field(default_factory=dict)
    theta: str = "rope_theta"
    partial: str | None = None
    default_theta: float = 10000
    default_partial: float = 1.0


_LLAMA: Mapping[str, Json] = {
    "num_key_value_heads": None,
    "head_dim": None,
    "hidden_act": "silu",
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "attention_bias": False,
    "mlp_bias": False,
}
_QWEN2: Mapping[str, Json] = {
    "num_key_value_heads": 32,
    "head_dim": None,
    "hidden_act": "silu",
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "use_sliding_window": False,
    "sliding_window": 4096,
    "max_window_layers": 28,
    "layer_types": None,
}
_GROUPED = frozenset({"num_key_value_heads", "head_dim"})
_WINDOWED = frozenset({"num_key_value_heads", "sliding_window", "layer_types"})

CONFIG_CLASSES: Mapping[str, ConfigClass] = {
    "llama": ConfigClass("LlamaConfig", "llama", _LLAMA, _GROUPED),
    "internlm3": ConfigClass(
        "InternLM3Config",
        "llama",
        {
            **_LLAMA,
            "num_key_value_heads": 2,
            "head_dim": 128,
            "max_position_embeddings": 32768,
            "rms_norm_eps": 1e-5,
        },
        _GROUPED,
        renamed={"qkv_bias": "attention_bias", "bias": "mlp_bias"},
    ),
    "iquestcoder": ConfigClass(
        "IQuestCoderConfig",
        "llama",
        {
            **_LLAMA,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "max_position_embeddings": 131072,
            "rms_norm_eps": 1e-5,
        },
        _GROUPED,
    ),
    "mistral": ConfigClass(
        "MistralConfig",
        "mistral",
        {
            "num_key_value_heads": 8,
            "head_dim": None,
            "hidden_act": "silu",
            "max_position_embeddings": 131072,
            "rms_norm_eps": 1e-6,
            "tie_word_embeddings": False,
            "sliding_window": 4096,
            "layer_types": None,
        },
        frozenset({"head_dim", "sliding_window", "layer_types"}),
    ),
    "qwen2": ConfigClass("Qwen2Config", "qwen2", _QWEN2, _WINDOWED),
    "qwen3": ConfigClass("Qwen3Config", "qwen3", {**_QWEN2, "head_dim": 128, "attention_bias": False}, _WINDOWED),
    "gpt_neox": ConfigClass(
        "GPTNeoXConfig",
        "gpt_neox",
        {
            "hidden_act": "gelu",
            "max_position_embeddings": 2048,
            "layer_norm_eps": 1e-5,
            "tie_word_embeddings": False,
            "use_parallel_residual": True,
            "attention_bias": True,
        },
        frozenset(),
        theta="rotary_emb_base",
        partial="rotary_pct",
        default_partial=0.25,
    ),
}
"""By transformers' model type: the families', and those whose maths is that of a family with other defaults."""
