"""Linear layers for GPUs: each product is one function that reads the weight as it is stored.

The unpacking of a weight and the product over it are two blocks of one function from the start, and a weight [n, k] is
read as such.  So no later pass needs to find and fuse them, and no schedule can leave a transposed or a
dequantized weight in the device's memory: the schedules of both blocks are chosen together (`llmbuild.compiler.schedules`).
What follows a product elementwise (bias, activation, residual) joins it when Relax fuses operators.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tvm import relax, te, tirx
from tvm.relax.frontend import nn
from tvm.relax.frontend.nn import op

from llmbuild.compiler.calls import Calls
from llmbuild.quantization.layers import dequantized
from llmbuild.quantization.scheme import Scheme

OUT_ELEMENTWISE_FUSIBLE = 4
"""TVM's number for a function whose output an elementwise function may join ("kOutEWiseFusable")."""

ATTRIBUTES = {"op_pattern": OUT_ELEMENTWISE_FUSIBLE}


class GpuKernels:
    """See the module's docstring; the interface is `llmbuild.quantization.layers.Kernels`.  One object serves one build."""

    activations: str | None = None

    def __init__(self) -> None:
        self._calls = Calls()

    def linear(self, x: nn.Tensor, weight: nn.Tensor, out_dtype: str) -> nn.Tensor:
        """x @ weight^T for a plain weight [n, k]."""

        def compute(x: te.Tensor, weight: te.Tensor) -> te.Tensor:
            return product(x, lambda i, j: weight[i, j], weight.shape[0], out_dtype)

        return self._emit(compute, "matmul", [x, weight], [out_dtype])

    def packed_linear(
        self, x: nn.Tensor, weights: Sequence[nn.Tensor], scheme: Scheme, n: Any, k: int, out_dtype: str
    ) -> nn.Tensor:
        """x @ w^T for a packed w [n, k]."""

        def compute(x: te.Tensor, *weights: te.Tensor) -> te.Tensor:
            return packed_product(x, weights, scheme, n, k, out_dtype)

        return self._emit(compute, "dequantize_matmul", [x, *weights], [str(scheme), n, k, out_dtype])

    def _emit(
        self, compute: Callable[..., te.Tensor], name: str, given: Sequence[nn.Tensor], others: Sequence[Any]
    ) -> nn.Tensor:
        """What `compute` makes of the tensors; `others` is whatever else it depends on."""
        builder, arguments = relax.BlockBuilder.current(), [tensor._expr for tensor in given]
        call = self._calls.call(
            [name, *others],
            arguments,
            lambda: builder.call_te(compute, *arguments, primfunc_name_hint=name, primfunc_attrs=ATTRIBUTES),
        )
        return op.wrap_nested(builder.emit(call), name)


def packed_product(
    x: te.Tensor, weights: Sequence[te.Tensor], scheme: Scheme, n: Any, k: int, out_dtype: str
) -> te.Tensor:
    """The product with a packed weight, as two stages."""
    weight = dequantized(weights, scheme, n, k)
    return product(x, lambda i, j: weight[j, i] if scheme.inputs_first else weight[i, j], n, out_dtype)


def product(x: te.Tensor, weight: Any, n: Any, out_dtype: str) -> te.Tensor:
    """sum over j of x[b, s, j] * weight(i, j) as [b, s, n], accumulated in `out_dtype`."""
    b, s, k = x.shape
    j = te.reduce_axis((0, k), name="k")

    def element(row: Any, position: Any, i: Any) -> Any:
        left, right = x[row, position, j], weight(i, j)
        if x.dtype != out_dtype:
            left, right = left.astype(out_dtype), right.astype(out_dtype)
        return te.sum(left * right, axis=j)

    assert isinstance(n, int | tirx.Expr)
    return te.compute((b, s, n), element, name="matmul")
