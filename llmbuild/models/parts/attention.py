"""Grouped-query attention over the paged KV cache, which also applies RoPE."""

from __future__ import annotations

from typing import Any

from tvm import relax
from tvm.relax.frontend import nn
from tvm.relax.frontend.nn import op
from tvm.relax.frontend.nn.llm.kv_cache import PagedKVCache

from llmbuild.models.parts.norm import RMSNorm
from llmbuild.models.spec import AttentionSpec
from llmbuild.quantization.layers import Kernels, Linear
from llmbuild.quantization.scheme import Scheme


class Attention(nn.Module):  # type: ignore[misc]
    """Fused q, k, v projection, optional norms per head, attention, output projection."""

    def __init__(self, spec: AttentionSpec, hidden_size: int, scheme: Scheme, kernels: Kernels) -> None:
        super().__init__()
        self.spec = spec
        inner = spec.heads * spec.head_dim
        setattr(self, spec.qkv, Linear(hidden_size, spec.qkv_features, scheme, kernels, bias=spec.qkv_bias))
        setattr(self, spec.out, Linear(inner, hidden_size, scheme, kernels, bias=spec.out_bias))
        if spec.qk_norm is not None:
            self.q_norm = RMSNorm(spec.head_dim, spec.qk_norm.eps, scheme.dtype)
            self.k_norm = RMSNorm(spec.head_dim, spec.qk_norm.eps, scheme.dtype)

    def forward(self, x: nn.Tensor, cache: PagedKVCache, layer: int) -> nn.Tensor:
        """[b, s, hidden] to [b, s, hidden], appending this layer's k and v to the cache."""
        spec = self.spec
        b, s, _ = x.shape
        qkv = op.reshape(getattr(self, spec.qkv)(x), (b * s, spec.heads + 2 * spec.kv_heads, spec.head_dim))
        if spec.qk_norm is not None:
            q, k, v = op.split(qkv, [spec.heads, spec.heads + spec.kv_heads], axis=1)
            qkv = op.concat([self.q_norm(q), self.k_norm(k), v], dim=1)
        out = _attend(cache, layer, qkv, spec)
        return getattr(self, spec.out)(op.reshape(out, (b, s, spec.heads * spec.head_dim)))


def _attend(cache: PagedKVCache, layer: int, qkv: nn.Tensor, spec: AttentionSpec) -> nn.Tensor:
    """[tokens, heads + 2 * kv_heads, head_dim] to [tokens, heads, head_dim].

    The method of PagedKVCache takes and returns four dimensions and reshapes on both sides.  With the reshapes of the caller
    these are pairs, which fusion makes copying kernels of; a single one is a view.
    """
    call: Any = relax.call_dps_packed(
        "vm.builtin.attention_kv_cache_attention_with_fused_qkv",
        [cache._expr, relax.prim_value(layer), relax.prim_value(spec.head_dim**-0.5), qkv._expr],
        out_ty=relax.TensorType((qkv.shape[0], spec.heads, spec.head_dim), qkv.dtype),
    )
    return nn.Tensor(_expr=relax.BlockBuilder.current().emit(call))
