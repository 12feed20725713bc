"""Linear layers on CPU: which of our kernels serves a layer, and TVM's operators where none does."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from tvm import tirx
from tvm.relax.frontend import nn
from tvm.relax.frontend.nn import op

from llmbuild.compiler.kernels.cpu import dense, packed, packed_awq
from llmbuild.compiler.kernels.cpu.instructions import of_levels, of_target
from llmbuild.compiler.kernels.cpu.instructions.instructions import Instructions
from llmbuild.compiler.kernels.cpu.rounding import Rounding
from llmbuild.compiler.kernels.cpu.tile import TILE_COLUMNS
from llmbuild.compiler.levels.level import Level
from llmbuild.compiler.passes.levels import with_levels
from llmbuild.compiler.reuse import directly
from llmbuild.quantization.layers import GenericKernels
from llmbuild.quantization.scheme import Scheme

if TYPE_CHECKING:
    from llmbuild.quantization.layers import Kernels


PLANES = {"int8x2": 2, "int8": 1, "float": 0}
"""By the values of a platform's `activations`: how many bytes an element of x is rounded to, 0 where it stays as it is."""


class CpuKernels:
    """Our kernels for packed and unquantized weights; `fallback` for layers of few outputs.

    `activations` says how x is rounded (PLANES) for products of small whole numbers `by` the target's instructions, which
    multiply a row or a few with weights of the layout NK; nothing is rounded where either is None.  `levels` are for CPUs that
    have more than the target.  `one` gives the kernel that a function makes of arguments: with levels, its stand-in.
    """

    def __init__(
        self,
        fallback: Kernels,
        activations: str | None = None,
        by: Instructions | None = None,
        one: Callable[..., Any] = directly,
        levels: Mapping[Level, Instructions] = MappingProxyType({}),
    ) -> None:
        self.fallback = fallback
        self._one = one
        self._levels = levels
        planes = 0 if activations is None else PLANES[activations]
        self.rounding = None if by is None or planes == 0 else Rounding(planes, by)
        self.activations: str | None = None
        self._rounded = activations
        # Parsing a kernel takes 0.1 s and layers repeat.  One object serves one build only: passes may alter a function
        # in place, so that one that was used in a build must not be used in another.
        self.made: dict[tuple[Any, ...], Any] = {}

    def _kernel(self, make: Callable[..., Any], *key: Any) -> Any:
        name = (make, *key)
        if name not in self.made:
            self.made[name] = self._one(make, *key)
        return self.made[name]

    def linear(self, x: nn.Tensor, weight: nn.Tensor, out_dtype: str) -> nn.Tensor:
        """x [..., K] times the transpose of weight [N, K]."""
        n, k = weight.shape
        rows = _rows(x.shape)
        if _outputs(n) < TILE_COLUMNS or not isinstance(k, int) or rows is None:
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
        serves = (
            packed_awq.serves(scheme, _outputs(n), k) if scheme.comes_packed else packed.serves(scheme, _outputs(n))
        )
        if not serves or rows is None:
            return self.fallback.packed_linear(x, weights, scheme, n, k, out_dtype)
        before, single, after = rows
        places = (before,) if single else (before, after)
        dtypes = (x.dtype, weights[-1].dtype, out_dtype)
        if scheme.comes_packed:
            awq = packed_awq.vector_kernel if single else packed_awq.matrix_kernel
            kernel = self._kernel(awq, scheme, k, *places, *dtypes)
        else:
            make = packed.vector_kernel if single else packed.matrix_kernel
            kernel = self._leveled(make, single, scheme, k, *places, *dtypes)
        name = f"{scheme.layout.lower()}{scheme.bits}_{'vector' if single else 'matrix'}"
        return _call(name, kernel, [x, *weights], [*x.shape[:-1], n], out_dtype)

    def _leveled(self, make: Callable[..., Any], single: bool, scheme: Scheme, k: int, *others: Any) -> Any:
        """The kernel by the target's instructions, with those for levels where there are such for the scheme and K inputs of a
        single row or of many."""
        rounding = self._rounded_by(scheme, k)
        kernel = self._kernel(make, rounding, scheme, k, *others)
        if rounding is None:
            return kernel
        leveled = {
            level: self._kernel(make, Rounding(rounding.planes, by), scheme, k, *others)
            for level, by in self._levels.items()
            if packed.serves_level(by, scheme, k, single)
        }
        return with_levels(kernel, leveled) if leveled else kernel

    def _rounded_by(self, scheme: Scheme, k: int) -> Rounding | None:
        """How rows of K inputs are rounded, where that is wanted and there are products for it."""
        if self.rounding is None or packed.rounded(self.rounding.by, scheme, k) is None:
            return None
        self.activations = self._rounded
        return self.rounding


def for_target(target: Any, fallback: Kernels, activations: str | None) -> CpuKernels:
    """The kernels for a target's CPU, which rounds no activations where there are no instructions for it."""
    return CpuKernels(fallback, activations, of_target(target))


def for_library(target: Any, activations: str | None, one: Callable[..., Any]) -> CpuKernels:
    """The same for a library, which has kernels for better CPUs of the target besides."""
    return CpuKernels(GenericKernels(), activations, of_target(target), one, of_levels(target))


def _outputs(n: Any) -> int:
    """A layer's outputs, at least.  A dynamic number of them is a vocabulary, which `lower` checks."""
    return n if isinstance(n, int) else TILE_COLUMNS


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
