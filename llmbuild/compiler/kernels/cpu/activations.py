"""Activation functions on a CPU: of float32, whatever an element's type is, in expressions that vectorize.

TVM's `silu` is x * sigmoid(x) in the type of x: in float16 the sigmoid of -12 is 0, since exp(12) is infinite, and silu(-12)
becomes 0 instead of -7.4e-05.  In float32 its exponential and its hyperbolic tangent are calls of the C library, one an element.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from tvm import te
from tvm.script import tirx as T

from llmbuild.compiler.kernels.cpu.online_softmax import LOG2_E, exp2
from llmbuild.compiler.kernels.cpu.tile import f32


def sigmoid(x: Any) -> Any:
    """1 / (1 + exp(-x)) of float32, at least 2^-126."""
    power = exp2(T.abs(x) * T.float32(-LOG2_E))
    return T.Select(x < T.float32(0), power, T.float32(1)) / (T.float32(1) + power)


def gated(x: Any, gate: Any) -> Any:
    """x times a sigmoid, which is never 0: from -88 on the product is taken as that of -88, 1e-36 and less from 0."""
    return T.max(T.float32(-88), x) * sigmoid(gate)


def silu(x: Any) -> Any:
    return gated(x, x)


def gelu(x: Any) -> Any:
    return x * (T.float32(0.5) + T.float32(0.5) * T.erf(x * T.float32(math.sqrt(0.5))))


def gelu_tanh(x: Any) -> Any:
    """The approximation x (1 + tanh(z)) / 2, where (1 + tanh(z)) / 2 is the sigmoid of 2 z."""
    twice = T.float32(2 * math.sqrt(2 / math.pi))
    return gated(x, twice * (x + T.float32(0.044715) * x * x * x))


ACTIVATIONS: Mapping[str, Callable[[Any], Any]] = {"silu": silu, "gelu": gelu, "gelu_tanh": gelu_tanh}
"""By the names of the operators of Relax."""


def activation(name: str, x: Any) -> Any:
    """The tensor of an activation of each element of the tensor x."""

    def element(*indices: Any) -> Any:
        return T.Cast(x.dtype, ACTIVATIONS[name](f32(x(*indices))))

    return te.compute(x.shape, element, name=name)
