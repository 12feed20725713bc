"""Normalization over the last axis, with the parameters of `NormSpec`."""

from __future__ import annotations

from tvm.relax.frontend import nn
from tvm.relax.frontend.nn import op

from llmbuild.models.spec import NormSpec


class RMSNorm(nn.Module):  # type: ignore[misc]
    """x / sqrt(mean(x^2) + eps) * weight (Zhang and Sennrich, 2019)."""

    def __init__(self, size: int, eps: float, dtype: str) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter((size,), dtype)

    def forward(self, x: nn.Tensor) -> nn.Tensor:
        return op.rms_norm(x, self.weight, axes=-1, epsilon=self.eps)


class LayerNorm(nn.Module):  # type: ignore[misc]
    """(x - mean) / sqrt(variance + eps) * weight + bias."""

    def __init__(self, size: int, eps: float, dtype: str) -> None:
        super().__init__()
        self.size, self.eps = size, eps
        self.weight = nn.Parameter((size,), dtype)
        self.bias = nn.Parameter((size,), dtype)

    def forward(self, x: nn.Tensor) -> nn.Tensor:
        return op.layer_norm(x, normalized_shape=self.size, weight=self.weight, bias=self.bias, eps=self.eps)


def build_norm(spec: NormSpec, size: int, dtype: str) -> nn.Module:
    """The norm of `size` elements that the description names."""
    return (RMSNorm if spec.kind == "rms" else LayerNorm)(size, spec.eps, dtype)
