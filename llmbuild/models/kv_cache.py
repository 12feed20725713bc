"""The layout of a model's paged KV cache, as data; the compiler writes the library's creation function from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from llmbuild.canonical import Json
from llmbuild.models.spec import DecoderSpec


@dataclass(frozen=True, slots=True)
class KVCacheLayout:
    """Counts are per device.  `rope_scaling` is {} for none, or an object with the key "rope_type"; mode "normal" applies
    RoPE to q and k before k is stored."""

    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    rotary_dim: int
    rope_theta: float
    dtype: str
    rope_scaling: Mapping[str, Json] = field(default_factory=dict)
    rope_mode: Literal["normal", "none", "inline"] = "normal"
    disaggregation: bool = False


def kv_cache_layout(spec: DecoderSpec, dtype: str) -> KVCacheLayout:
    """The cache that a decoder of this description needs when it computes in `dtype`."""
    return KVCacheLayout(
        num_hidden_layers=spec.num_layers,
        num_attention_heads=spec.attention.heads,
        num_key_value_heads=spec.attention.kv_heads,
        head_dim=spec.attention.head_dim,
        rotary_dim=spec.rope.rotary_dim,
        rope_theta=spec.rope.theta,
        dtype=dtype,
        rope_scaling=dict(spec.rope.scaling or {}),
        disaggregation=spec.disaggregation,
    )
