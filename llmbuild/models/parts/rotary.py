"""Rotary embedding as an expression, and inside of a layer: where layers differ in it the cache cannot apply it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import te, tirx
from tvm.relax.frontend import nn
from tvm.relax.frontend.nn import op

from llmbuild.models.spec import RopeSpec

Turns = tuple[nn.Tensor, nn.Tensor]
"""Cosines and sines, times the factor of a RopeSpec, float32 [tokens, pairs]."""


def turns(positions: nn.Tensor, rope: RopeSpec) -> Turns:
    """How far each pair of elements turns at int32 positions [tokens]: the same for all heads and all layers of this RoPE."""
    frequencies = nn.Tensor.from_const(np.array(rope.frequencies, "float32"))

    def at(which: Callable[[Any], Any]) -> Callable[[te.Tensor, te.Tensor], te.Tensor]:
        factor = tirx.const(rope.factor, "float32")

        def computed(positions: te.Tensor, frequencies: te.Tensor) -> te.Tensor:
            shape = (positions.shape[0], frequencies.shape[0])
            return te.compute(shape, lambda t, pair: which(positions[t].astype("float32") * frequencies[pair]) * factor)

        return computed

    arguments = [positions, frequencies]
    return (
        op.tensor_expr_op(at(tirx.cos), "cosines", arguments),
        op.tensor_expr_op(at(tirx.sin), "sines", arguments),
    )


def rotate(qkv: nn.Tensor, turns: Turns, rope: RopeSpec, heads: int) -> nn.Tensor:
    """The first `heads` heads of [tokens, all heads, head_dim] turned, others as they are."""

    def turned(qkv: te.Tensor, cosines: te.Tensor, sines: te.Tensor) -> te.Tensor:
        def element(token: Any, head: Any, index: Any) -> Any:
            at = rotation(index, rope)
            cosine, sine = cosines[token, at.pair], sines[token, at.pair]
            value = at.turned(lambda which: qkv[token, head, which].astype("float32"), cosine, sine).astype(qkv.dtype)
            return tirx.if_then_else(tirx.all(head < heads, index < rope.rotary_dim), value, qkv[token, head, index])

        return te.compute(qkv.shape, element, name="rotate")

    return op.tensor_expr_op(turned, "rotate", [qkv, *turns])


@dataclass(frozen=True, slots=True)
class Rotation:
    """An element of a head: its pair, the pair's other element, and the sign of its sine."""

    element: Any
    pair: Any
    partner: Any
    sign: Any

    def turned(self, head: Callable[[Any], Any], cosine: Any, sine: Any) -> Any:
        """The element after turning its pair; `head` gives elements in float32."""
        return head(self.element) * cosine + self.sign * head(self.partner) * sine


def rotation(index: Any, rope: RopeSpec) -> Rotation:
    """The rotation of an element, which is kept within the rotated ones."""
    index = tirx.min(index, rope.rotary_dim - 1)
    half = rope.rotary_dim // 2
    if rope.interleaved:
        even = index % 2 == 0
        return Rotation(index, index // 2, tirx.Select(even, index + 1, index - 1), _sign(even))
    first = index < half
    return Rotation(index, index % half, tirx.Select(first, index + half, index - half), _sign(first))


def _sign(first: Any) -> Any:
    return tirx.Select(first, tirx.const(-1, "float32"), tirx.const(1, "float32"))
