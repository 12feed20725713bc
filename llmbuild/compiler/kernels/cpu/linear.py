"""Linear layers on CPU: which of our kernels serves a layer, and TVM's operators where none does."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from tvm import tirx
from tvm.relax.frontend import nn
from tvm.relax.frontend.nn import op
from tvm.target.codegen import llvm_cpu_has_features

from llmbuild.compiler.kernels.cpu import dense, group4, group4_int8
from llmbuild.compiler.kernels.cpu.rounding import STEP
from llmbuild.compiler.kernels.cpu.tile import TILE_COLUMNS
from llmbuild.quantization.scheme import Scheme

if TYPE_CHECKING:
    from llmbuild.quantization.layers import Kernels


PLANES = {"int8x2": 2, "int8": 1, "float": 0}
"""By the values of a platform's `activations`: how many bytes an element of x is rounded to, 0 where it stays as it is."""


class CpuKernels:
    """Our kernels for NK layouts of 4 bits in groups of 32, and for unquantized weights; `fallback` for the rest
    (3 bits, KN layouts, widths that are no multiple of a group, fewer than 16 outputs).

    `activations` says how x is rounded for AVX2's products of bytes (PLANES), which multiply a row or a few where the width is a
    multiple of two groups; None or "float" for not at all.
    """

    def __init__(self, fallback: Kernels, activations: str | None = None) -> None:
        self.fallback = fallback
        self.planes = 0 if activations is None else PLANES[activations]
        self.activations: str | None = None
        self._rounded = activations
        # Parsing a kernel takes 0.1 s and layers repeat.  One object serves one build only: passes may alter a function
        # in place, so that one that was used in a build must not be used in another.
        self.made: dict[tuple[Any, ...], Any] = {}

    def _kernel(self, make: Callable[..., Any], *key: Any) -> Any:
        name = (make, *key)
        if name not in self.made:
            self.made[name] = make(*key)
        return self.made[name]

    def linear(self, x: nn.Tensor, weight: nn.Tensor, out_dtype: str) -> nn.Tensor:
        """x [..., K] times the transpose of weight [N, K]."""
        n, k = weight.shape
        rows = _rows(x.shape)
        if not _wide(n) or not isinstance(k, int) or rows is None:
            return self.fallback.linear(x, weight, out_dtype)
        before, single, after = rows
        if single:
            name, kernel = (
                "dense_vector",
                self._kernel(dense.vector_kernel, k, before, x.dtype, weight.dtype, out_dtype),
            )
        else:
            name, kernel = (
                "dense_matrix",
                self._kernel(dense.matrix_kernel, k, before, after, x.dtype, weight.dtype, out_dtype),
            )
        return _call(name, kernel, [x, weight], [*x.shape[:-1], n], out_dtype)

    def packed_linear(
        self, x: nn.Tensor, weights: Sequence[nn.Tensor], scheme: Scheme, n: Any, k: int, out_dtype: str
    ) -> nn.Tensor:
        """x [..., K] times the transpose of the packed weight of N outputs."""
        rows = _rows(x.shape)
        if not scheme.has_cpu_kernels or k % group4.GROUP or not _wide(n) or rows is None:
            return self.fallback.packed_linear(x, weights, scheme, n, k, out_dtype)
        q_weight, q_scale = weights
        before, single, after = rows
        places = (before,) if single else (before, after)
        dtypes = (x.dtype, q_scale.dtype, out_dtype)
        if self.planes and k % STEP == 0:
            self.activations = self._rounded
            rounding = group4_int8.vector_kernel if single else group4_int8.matrix_kernel
            kernel = self._kernel(rounding, self.planes, k, *places, *dtypes)
        else:
            exact = group4.vector_kernel if single else group4.matrix_kernel
            kernel = self._kernel(exact, k, *places, *dtypes)
        name = "group4_vector" if single else "group4_matrix"
        return _call(name, kernel, [x, q_weight, q_scale], [*x.shape[:-1], n], out_dtype)


def for_target(target: Any, fallback: Kernels, activations: str | None) -> CpuKernels:
    """The kernels for a target's CPU, which rounds no activations where it has no AVX2."""
    with target:
        return CpuKernels(fallback, activations if llvm_cpu_has_features("avx2") else None)


def _wide(n: Any) -> bool:
    """Whether a panel of outputs fits.  A dynamic number of outputs is a vocabulary, which `lower` checks."""
    return not isinstance(n, int) or n >= TILE_COLUMNS


def _rows(shape: list[Any]) -> tuple[int, bool, int] | None:
    """Unit dimensions before the rows, whether there is a single row, and unit dimensions after it.  None where two dimensions
    contain rows: no exported function has such an input."""
    leading = shape[:-1]
    many = [index for index, size in enumerate(leading) if not _is_one(size)]
    if len(many) > 1 or not leading:
        return None
    if not many:
        return len(leading) - 1, True, 0
    return many[0], False, len(leading) - 1 - many[0]


def _is_one(size: Any) -> bool:
    return (isinstance(size, int) and size == 1) or (isinstance(size, tirx.IntImm) and int(size) == 1)


def _call(name: str, kernel: Any, args: list[nn.Tensor], shape: list[Any], dtype: str) -> nn.Tensor:
    depth = math.prod(args[0].shape[-1:])
    return op.tensor_ir_op(kernel, f"{name}_{depth}", args, out=nn.Tensor.placeholder(shape, dtype))
