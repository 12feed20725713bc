"""The layout of a model's paged KV cache, as data; the compiler writes the library's creation function from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from llmbuild.models.spec import AttentionSpec, DecoderSpec, RopeSpec

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class KVCacheLayout:
    """Counts are per device.

    `rope` is what the cache applies to q and k before k is stored; None: the layers apply theirs.  With `rolling` it keeps a
    window of one size, and RoPE turns keys as they are used.  `window` is the size of the window of the layers whose scale is
    negative; scores of all layers are capped by `softcap`.
    """

    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    dtype: str
    rope: RopeSpec | None
    rolling: bool = False
    window: int | None = None
    softcap: float | None = None
    disaggregation: bool = False

    @property
    def applied_rope(self) -> RopeSpec | None:
        """What q and k are turned by before k is stored: not a rolling cache's, which turns them as they are used."""
        return None if self.rolling else self.rope


def kv_cache_layout(spec: DecoderSpec, dtype: str) -> KVCacheLayout:
    """The cache that a decoder of this description needs when it computes in `dtype`.

    Raises ValueError for layers that one cache cannot serve: unlike numbers of heads, windows or soft caps, or windows by
    positions in a rolling cache, which renumbers them.
    """
    layers = [block.attention for block in spec.blocks]
    heads, kv_heads, head_dim = _one(
        {(layer.heads, layer.kv_heads, layer.head_dim) for layer in layers}, "sizes of heads"
    )
    windows = {layer.window for layer in layers} - {None}
    if windows and spec.rolling:
        raise ValueError("a rolling cache cannot serve layers with windows of their own")
    return KVCacheLayout(
        num_hidden_layers=len(layers),
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=head_dim,
        dtype=dtype,
        rope=_rope_of_all(layers),
        rolling=spec.rolling,
        window=_one(windows, "windows") if windows else None,
        softcap=_one({layer.softcap for layer in layers}, "soft caps"),
        disaggregation=spec.disaggregation,
    )


def _rope_of_all(layers: list[AttentionSpec]) -> RopeSpec | None:
    """The RoPE that the cache can apply, as all layers have it, right before attention."""
    ropes = {layer.rope for layer in layers}
    return None if len(ropes) > 1 or any(layer.qk_norm_after_rope for layer in layers) else ropes.pop()


def _one(values: set[T], what: str) -> T:
    if len(values) > 1:
        raise ValueError(f"one KV cache cannot serve layers of unlike {what}")
    return next(iter(values))
