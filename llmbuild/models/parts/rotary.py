"""Rotary embedding as an expression, and inside of a layer: where layers differ in it the cache cannot apply it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from tvm import te, tirx
from tvm.relax.frontend import nn
from tvm.relax.frontend.nn import op

from llmbuild.models.spec import RopeSpec


def rotate(qkv: nn.Tensor, positions: nn.Tensor, rope: RopeSpec, heads: int) -> nn.Tensor:
    """The first `heads` heads of [tokens, all heads, head_dim] turned by int32 positions [tokens], others as they are."""
    frequencies = nn.Tensor.from_const(np.array(rope.frequencies, "float32"))

    def turned(qkv: te.Tensor, positions: te.Tensor, frequencies: te.Tensor) -> te.Tensor:
        def element(token: Any, head: Any, index: Any) -> Any:
            x = qkv[token, head, index]
            value = rotated(lambda at: qkv[token, head, at], index, positions[token], frequencies, rope, qkv.dtype)
            return tirx.if_then_else(tirx.all(head < heads, index < rope.rotary_dim), value, x)

        return te.compute(qkv.shape, element, name="rotate")

    return op.tensor_expr_op(turned, "rotate", [qkv, positions, frequencies])


def rotated(head: Callable[[Any], Any], index: Any, position: Any, frequencies: Any, rope: RopeSpec, dtype: str) -> Any:
    """Element `index` of a head at an int32 position, where it is one of the rotated ones; `head` gives the elements."""
    pair, partner, sign = rotation(index, rope)
    x, other = head(index), head(partner)
    angle = position.astype("float32") * frequencies[pair]
    factor = tirx.const(rope.factor, "float32")
    whole = x.astype("float32") * tirx.cos(angle) * factor
    return (whole + sign * other.astype("float32") * tirx.sin(angle) * factor).astype(dtype)


def rotation(index: Any, rope: RopeSpec) -> tuple[Any, Any, Any]:
    """(pair, the pair's other element, sign of its sine) of an element of a head, kept within the rotated ones."""
    index = tirx.min(index, rope.rotary_dim - 1)
    half = rope.rotary_dim // 2
    if rope.interleaved:
        even = index % 2 == 0
        return index // 2, tirx.Select(even, index + 1, index - 1), _sign(even)
    first = index < half
    return index % half, tirx.Select(first, index + half, index - half), _sign(first)


def _sign(first: Any) -> Any:
    return tirx.Select(first, tirx.const(-1, "float32"), tirx.const(1, "float32"))
