"""Grouped-query attention over the paged KV cache, which applies RoPE unless layers differ in it."""

from __future__ import annotations

from typing import Any

from tvm import relax
from tvm.relax.frontend import nn
from tvm.relax.frontend.nn import op
from tvm.relax.frontend.nn.llm.kv_cache import PagedKVCache

from llmbuild.models.parts.modules import at, place
from llmbuild.models.parts.norm import EachHeadNorm, build_norm
from llmbuild.models.parts.rotary import Turns, rotate, turns
from llmbuild.models.parts.temperature import grown, growth
from llmbuild.models.spec import AttentionSpec, RopeSpec, TemperatureSpec
from llmbuild.quantization.layers import Kernels, Linear
from llmbuild.quantization.scheme import Scheme


class Step:
    """What all layers of one call share: the cache, and what is made of it once, where it is needed."""

    def __init__(self, cache: PagedKVCache, tokens: Any, *, rotates: bool) -> None:
        """`rotates` says whether the cache applies RoPE; else the layers do."""
        self.cache, self.tokens, self.rotates = cache, tokens, rotates
        self._positions: nn.Tensor | None = None
        self._turns: dict[RopeSpec, Turns] = {}
        self._growth: dict[TemperatureSpec, nn.Tensor] = {}

    @property
    def positions(self) -> nn.Tensor:
        """int32 [tokens]."""
        if self._positions is None:
            self._positions = self.cache.get_query_positions(self.tokens)
        return self._positions

    def turns(self, rope: RopeSpec) -> Turns:
        """How far pairs of elements turn at the positions."""
        if rope not in self._turns:
            self._turns[rope] = turns(self.positions, rope)
        return self._turns[rope]

    def growth(self, temperature: TemperatureSpec) -> nn.Tensor:
        """What queries at the positions are multiplied by."""
        if temperature not in self._growth:
            self._growth[temperature] = growth(self.positions, temperature)
        return self._growth[temperature]


class Attention(nn.Module):  # type: ignore[misc]
    """Projection of q, k and v, in one or in three, optional norms of q and k, attention, output projection."""

    def __init__(self, spec: AttentionSpec, hidden_size: int, scheme: Scheme, kernels: Kernels, layer: str) -> None:
        super().__init__()
        self.spec = spec
        inner = spec.heads * spec.head_dim
        for name, (features, _) in spec.qkv_modules.items():
            own = scheme.of(f"{layer}.{spec.name}.{name}")
            place(self, name, Linear(hidden_size, features, own, kernels, bias=spec.qkv_bias))
        own = scheme.of(f"{layer}.{spec.name}.{spec.out}")
        place(self, spec.out, Linear(inner, hidden_size, own, kernels, bias=spec.out_bias))
        if spec.qk_norm is not None:
            for name, heads in ((spec.q_norm, spec.heads), (spec.k_norm, spec.kv_heads)):
                if spec.qk_norm_over in ("each_head", "each_row"):
                    shape = (heads, spec.head_dim)
                    rows = spec.qk_norm_over == "each_row"
                    place(self, name, EachHeadNorm(spec.qk_norm, shape, scheme.dtype, rows=rows))
                    continue
                size = spec.head_dim * (heads if spec.qk_norm_over == "all_heads" else 1)
                place(self, name, build_norm(spec.qk_norm, size, scheme.dtype))

    def forward(self, x: nn.Tensor, step: Step, layer: int) -> nn.Tensor:
        """[b, s, hidden] to [b, s, hidden], appending this layer's k and v to the cache."""
        spec = self.spec
        b, s, _ = x.shape
        parts = [at(self, name)(x) for name in spec.qkv_modules]
        qkv = parts[0] if spec.joined else op.concat(parts, dim=-1)
        qkv = op.reshape(qkv, (b * s, spec.heads + 2 * spec.kv_heads, spec.head_dim))
        if spec.clip is not None:
            qkv = qkv.maximum(-spec.clip).minimum(spec.clip)
        if not spec.qk_norm_after_rope:
            qkv = self._normed(qkv)
        if spec.rope is not None and not step.rotates:
            qkv = rotate(qkv, step.turns(spec.rope), spec.rope, spec.heads + spec.kv_heads)
        if spec.qk_norm_after_rope:
            qkv = self._normed(qkv)
        if spec.temperature is not None:
            qkv = grown(qkv, step.growth(spec.temperature), spec.heads)
        out = _attend(step.cache, layer, qkv, spec)
        return at(self, spec.out)(op.reshape(out, (b, s, spec.heads * spec.head_dim)))

    def _normed(self, qkv: nn.Tensor) -> nn.Tensor:
        """q and k of [tokens, heads + 2 * kv_heads, head_dim] normalized."""
        spec = self.spec
        if spec.qk_norm is None:
            return qkv
        q, k, v = op.split(qkv, [spec.heads, spec.heads + spec.kv_heads], axis=1)
        q, k = (self._norm(name, part) for name, part in ((spec.q_norm, q), (spec.k_norm, k)))
        return op.concat([q, k, v], dim=1)

    def _norm(self, name: str, x: nn.Tensor) -> nn.Tensor:
        norm = at(self, name)
        if self.spec.qk_norm_over != "all_heads":
            return norm(x)
        tokens, heads, size = x.shape
        return op.reshape(norm(op.reshape(x, (tokens, heads * size))), (tokens, heads, size))


def _attend(cache: PagedKVCache, layer: int, qkv: nn.Tensor, spec: AttentionSpec) -> nn.Tensor:
    """[tokens, heads + 2 * kv_heads, head_dim] to [tokens, heads, head_dim].

    A negative scale says to the kernels that the layer has a window: it is the one number that they get of a layer.

    The method of PagedKVCache takes and returns four dimensions and reshapes on both sides.  With the reshapes of the caller
    these are pairs, which fusion makes copying kernels of; a single one is a view.
    """
    scale = spec.head_dim**-0.5 if spec.scale is None else spec.scale
    call: Any = relax.call_dps_packed(
        "vm.builtin.attention_kv_cache_attention_with_fused_qkv",
        [cache._expr, relax.prim_value(layer), relax.prim_value(scale if spec.window is None else -scale), qkv._expr],
        out_ty=relax.TensorType((qkv.shape[0], spec.heads, spec.head_dim), qkv.dtype),
    )
    return nn.Tensor(_expr=relax.BlockBuilder.current().emit(call))
