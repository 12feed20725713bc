"""Rotary embedding inside of a layer, for decoders whose layers differ in it: there the cache cannot apply it."""

from __future__ import annotations

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
            pair, partner, sign = rotation(index, rope)
            angle = positions[token].astype("float32") * frequencies[pair]
            factor = tirx.const(rope.factor, "float32")
            whole = x.astype("float32") * tirx.cos(angle) * factor
            other = qkv[token, head, partner].astype("float32") * tirx.sin(angle) * factor
            value = (whole + sign * other).astype(qkv.dtype)
            return tirx.if_then_else(tirx.all(head < heads, index < rope.rotary_dim), value, x)

        return te.compute(qkv.shape, element, name="rotate")

    return op.tensor_expr_op(turned, "rotate", [qkv, positions, frequencies])


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
