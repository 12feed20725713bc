"""Linear and embedding layers over packed or plain weights, and the interface of the kernels they call.

A layer declares its parameters as the weight directory stores them ("<module>.q_weight" and "<module>.q_scale" for a
packed weight, "<module>.qweight", "…qzeros" and "…scales" for one of AWQ, "<module>.weight" for a plain one) and leaves the
product to a `Kernels` object, chosen per device kind by the compiler.  `GenericKernels` serves every device: it dequantizes
in TE and multiplies with Relax operators.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

from tvm import relax, te, tirx
from tvm.relax.frontend import nn
from tvm.relax.frontend.nn import op

from llmbuild.quantization import awq
from llmbuild.quantization.scheme import Scheme


class Kernels(Protocol):
    """How a device multiplies.  `x` is always [b, s, k] with b or s equal to 1; the results are [b, s, n]."""

    activations: str | None
    """How x has been rounded in any product, None for not at all."""

    def linear(self, x: nn.Tensor, weight: nn.Tensor, out_dtype: str) -> nn.Tensor:
        """x @ weight^T for a plain weight [n, k] of x's dtype."""
        ...

    def packed_linear(
        self, x: nn.Tensor, weights: Sequence[nn.Tensor], scheme: Scheme, n: Any, k: int, out_dtype: str
    ) -> nn.Tensor:
        """x @ w^T for a packed w [n, k]: `weights` are its tensors, those that `packed_tensors` lists."""
        ...


def packed_tensors(scheme: Scheme, n: int, k: int) -> dict[str, tuple[tuple[int, int], str]]:
    """Name in the module, shape and dtype of each tensor that a packed weight [n, k] consists of."""
    if scheme.comes_packed:
        words, zeros, scales = awq.packed_shapes(scheme, n, k)
        return {"qweight": (words, "uint32"), "qzeros": (zeros, "uint32"), "scales": (scales, scheme.dtype)}
    weight, scale = packed_shapes(scheme, n, k)
    return {"q_weight": (weight, "uint32"), "q_scale": (scale, scheme.dtype)}


def packed_shapes(scheme: Scheme, n: int, k: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Shapes of q_weight and q_scale of a weight [n, k], whose k is padded to whole groups (formats: group quantization)."""
    groups = -(-k // scheme.group_size)
    weight, scale = (n, groups * scheme.words_per_group), (n, groups)
    return (weight, scale) if scheme.layout == "NK" else (weight[::-1], scale[::-1])


def dequantized_element(weights: Sequence[te.Tensor], scheme: Scheme, row: Any, column: Any) -> Any:
    """Element [row, column] of a packed weight as a TIR expression in the compute dtype: (q - max_int) * scale, and for
    AWQ (q - zero) * scale."""
    if scheme.comes_packed:
        return _awq_element(weights, scheme, row, column)
    q_weight, q_scale = weights
    word_index, group = column // scheme.elements_per_word, column // scheme.group_size
    at_word, at_scale = (row, word_index), (row, group)
    if scheme.inputs_first:
        at_word, at_scale = at_word[::-1], at_scale[::-1]
    value = _number(q_weight(*at_word), column % scheme.elements_per_word * scheme.bits, scheme)
    return (value - tirx.const(scheme.max_int, scheme.dtype)) * q_scale(*at_scale)


def _awq_element(weights: Sequence[te.Tensor], scheme: Scheme, row: Any, column: Any) -> Any:
    qweight, qzeros, scales = weights
    word, group, place = row // scheme.elements_per_word, column // scheme.group_size, awq.shift(row)
    zero = _number(qzeros(group, word), place, scheme)
    return (_number(qweight(column, word), place, scheme) - zero) * scales(group, row)


def _number(word: Any, place: Any, scheme: Scheme) -> Any:
    """The number that begins at bit `place` of a word."""
    mask = tirx.const((1 << scheme.bits) - 1, "uint32")
    return tirx.bitwise_and(tirx.shift_right(word, place.astype("uint32")), mask).astype(scheme.dtype)


def dequantized(weights: Sequence[te.Tensor], scheme: Scheme, n: Any, k: int) -> te.Tensor:
    """The whole of a packed weight [n, k], as it is stored: [k, n] where `scheme.inputs_first`.  Then neighbours along n are
    neighbours in memory, which is how a GPU's threads should read them, and a product needs no transpose."""
    if scheme.inputs_first:
        return te.compute((k, n), lambda j, i: dequantized_element(weights, scheme, i, j), name="dequantize")
    return te.compute((n, k), lambda i, j: dequantized_element(weights, scheme, i, j), name="dequantize")


def take(x: nn.Tensor, indices: nn.Tensor, axis: int) -> nn.Tensor:
    """Entries of `x` at int32 `indices` [b] along `axis`.

    The frontend's own `take` reads anywhere in memory for an index out of range; this one stays within x.
    """
    return op.wrap_nested(relax.op.take(x._expr, indices._expr, axis, mode="clip"), "take")


class GenericKernels:
    """Kernels for any device, left to the pass pipeline to fuse and schedule."""

    activations: str | None = None

    def linear(self, x: nn.Tensor, weight: nn.Tensor, out_dtype: str) -> nn.Tensor:
        """See `Kernels.linear`."""
        return op.matmul(x, op.permute_dims(weight), out_dtype=out_dtype)

    def packed_linear(
        self, x: nn.Tensor, weights: Sequence[nn.Tensor], scheme: Scheme, n: Any, k: int, out_dtype: str
    ) -> nn.Tensor:
        """See `Kernels.packed_linear`."""

        def dequantize(*weights: te.Tensor) -> te.Tensor:
            return dequantized(weights, scheme, n, k)

        weight = op.tensor_expr_op(dequantize, "dequantize", list(weights))
        if not scheme.inputs_first:
            weight = op.permute_dims(weight)
        return op.matmul(x, weight, out_dtype=out_dtype)


class Linear(nn.Module):  # type: ignore[misc]
    """y = x w^T (+ bias) with w [n, k] plain or packed.

    `out_dtype` is the dtype of the product and of y, and that of the bias unless `bias_dtype` is another; None means the compute
    dtype.
    """

    def __init__(
        self,
        k: int,
        n: int,
        scheme: Scheme,
        kernels: Kernels,
        *,
        bias: bool = False,
        out_dtype: str | None = None,
        bias_dtype: str | None = None,
        packed: bool | None = None,
    ) -> None:
        super().__init__()
        self.k, self.n = k, n
        self.scheme, self.kernels = scheme, kernels
        self.out_dtype = out_dtype or scheme.dtype
        self.packed = scheme.quantized if packed is None else packed
        self.tensors = packed_tensors(scheme, n, k) if self.packed else {"weight": ((n, k), scheme.dtype)}
        for name, (shape, dtype) in self.tensors.items():
            setattr(self, name, nn.Parameter(shape, dtype))
        self.bias = nn.Parameter((n,), bias_dtype or self.out_dtype) if bias else None

    def forward(self, x: nn.Tensor) -> nn.Tensor:
        """[b, s, k] (or [s, k]) to [b, s, n] (or [s, n])."""
        rows = op.unsqueeze(x, 0) if x.ndim == 2 else x
        weights = [getattr(self, name) for name in self.tensors]
        if self.packed:
            y = self.kernels.packed_linear(rows, weights, self.scheme, self.n, self.k, self.out_dtype)
        else:
            y = self.kernels.linear(rows, weights[0], self.out_dtype)
        if self.bias is not None:
            y = y + (self.bias if self.bias.dtype == y.dtype else op.astype(self.bias, y.dtype))
        return op.reshape(y, (x.shape[0], self.n)) if x.ndim == 2 else y


class Embedding(nn.Module):  # type: ignore[misc]
    """A table [n, k], plain or packed (never transposed), that a tied model also uses as its head."""

    def __init__(self, n: int, k: int, scheme: Scheme, kernels: Kernels) -> None:
        super().__init__()
        self.n, self.k = n, k
        self.scheme, self.kernels = replace(scheme, layout="NK"), kernels
        self.packed = scheme.quantized and scheme.quantize_embedding
        if self.packed:
            weight, scale = packed_shapes(self.scheme, n, k)
            self.q_weight = nn.Parameter(weight, "uint32")
            self.q_scale = nn.Parameter(scale, scheme.dtype)
        else:
            self.weight = nn.Parameter((n, k), scheme.dtype)

    def forward(self, ids: nn.Tensor) -> nn.Tensor:
        """int32 ids [s] to [s, k]; of a packed table only the requested rows are dequantized."""
        if not self.packed:
            return take(self.weight, ids, axis=0)

        def rows(ids: te.Tensor, words: te.Tensor, scales: te.Tensor) -> te.Tensor:
            def element(i: Any, j: Any) -> Any:
                row = tirx.max(tirx.min(ids(i), self.n - 1), 0)  # As `take`, never outside of the table.
                return dequantized_element((words, scales), self.scheme, row, j)

            return te.compute((ids.shape[0], self.k), element, name="dequantize_take")

        return op.tensor_expr_op(rows, "dequantize_take", [ids, self.q_weight, self.q_scale])

    def logits(self, x: nn.Tensor) -> nn.Tensor:
        """The tied head: [b, s, k] (or [s, k]) to float32 [b, s, n] (or [s, n])."""
        rows = op.unsqueeze(x, 0) if x.ndim == 2 else x
        if self.packed:
            weights = (self.q_weight, self.q_scale)
            y = self.kernels.packed_linear(rows, weights, self.scheme, self.n, self.k, "float32")
        else:
            y = self.kernels.linear(rows, self.weight, "float32")
        return op.reshape(y, (x.shape[0], self.n)) if x.ndim == 2 else y
