"""Queries that grow with the logarithm of their position."""

from __future__ import annotations

from typing import Any

from tvm import te, tirx
from tvm.relax.frontend import nn
from tvm.relax.frontend.nn import op

from llmbuild.models.spec import TemperatureSpec


def growth(positions: nn.Tensor, temperature: TemperatureSpec) -> nn.Tensor:
    """What queries at int32 positions [tokens] are multiplied by, float32 [tokens]: the same for all heads and layers."""

    def at(positions: te.Tensor) -> te.Tensor:
        def value(token: Any) -> Any:
            lengths = tirx.floordiv(positions[token], temperature.length).astype("float32")
            return tirx.log(lengths + 1) * tirx.const(temperature.beta, "float32") + 1

        return te.compute(positions.shape, value, name="growth")

    return op.tensor_expr_op(at, "growth", [positions])


def grown(qkv: nn.Tensor, growth: nn.Tensor, heads: int) -> nn.Tensor:
    """The first `heads` heads of [tokens, all heads, head_dim] multiplied, others as they are."""

    def multiplied(qkv: te.Tensor, growth: te.Tensor) -> te.Tensor:
        def element(token: Any, head: Any, index: Any) -> Any:
            value = qkv[token, head, index]
            return tirx.if_then_else(head < heads, (value.astype("float32") * growth[token]).astype(qkv.dtype), value)

        return te.compute(qkv.shape, element, name="grown")

    return op.tensor_expr_op(multiplied, "grown", [qkv, growth])
