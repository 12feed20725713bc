"""Normalization over the last axis, with the parameters of `NormSpec`."""

from __future__ import annotations

from dataclasses import replace

from tvm.relax.frontend import nn
from tvm.relax.frontend.nn import op

from llmbuild.models.spec import NormSpec


class RMSNorm(nn.Module):  # type: ignore[misc]
    """x / sqrt(mean(x^2) + eps) * weight (Zhang and Sennrich, 2019); a norm without weight multiplies by 1."""

    def __init__(self, spec: NormSpec, size: int, dtype: str) -> None:
        super().__init__()
        self.spec, self.size = spec, size
        if spec.weight:
            self.weight = nn.Parameter((size,), dtype)

    def forward(self, x: nn.Tensor) -> nn.Tensor:
        weight = _weight_of(self, x.dtype)
        return op.rms_norm(x, weight, axes=-1, epsilon=self.spec.eps)


class LayerNorm(nn.Module):  # type: ignore[misc]
    """(x - mean) / sqrt(variance + eps) * weight + bias, each where the description has it."""

    def __init__(self, spec: NormSpec, size: int, dtype: str) -> None:
        super().__init__()
        self.spec, self.size = spec, size
        if spec.weight:
            self.weight = nn.Parameter((size,), dtype)
        if spec.has_bias:
            self.bias = nn.Parameter((size,), dtype)

    def forward(self, x: nn.Tensor) -> nn.Tensor:
        weight = _weight_of(self, x.dtype)
        bias = self.bias if self.spec.has_bias else op.zeros((self.size,), x.dtype)
        return op.layer_norm(x, normalized_shape=self.size, weight=weight, bias=bias, eps=self.spec.eps)


def _weight_of(norm: RMSNorm | LayerNorm, dtype: str) -> nn.Tensor:
    if not norm.spec.weight:
        return op.ones((norm.size,), dtype)
    return norm.weight + norm.spec.shift if norm.spec.shift else norm.weight


class EachHeadNorm(nn.Module):  # type: ignore[misc]
    """Heads [tokens, heads, size] normalized one by one, each with a weight of its own."""

    def __init__(self, spec: NormSpec, shape: tuple[int, int], dtype: str, *, rows: bool) -> None:
        """`shape` has the heads and their size; with `rows` the weight is of this shape, else flat."""
        super().__init__()
        self.shape = shape
        self.norm = build_norm(replace(spec, weight=False), shape[1], dtype)
        self.weight = nn.Parameter(shape if rows else (shape[0] * shape[1],), dtype)

    def forward(self, x: nn.Tensor) -> nn.Tensor:
        return self.norm(x) * op.reshape(self.weight, self.shape)


def build_norm(spec: NormSpec, size: int, dtype: str) -> nn.Module:
    """The norm of `size` elements that the description names."""
    return (RMSNorm if spec.kind == "rms" else LayerNorm)(spec, size, dtype)
