"""CPU kernels for packed weights in the layouts in which they lie on disk, without any repacking.

Vector times matrix: see `packed_nk` and `packed_kn`.  Matrix times matrix: a panel of K x 16 weights is dequantized once, then
used by a register tile for all rows of x (`packed_words`).

The number of outputs is dynamic, so that layers with equal K share one function.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm.script import tirx as T

from llmbuild.compiler.kernels.cpu import packed_kn, packed_nk, packed_nk_int8, packed_nk_int16
from llmbuild.compiler.kernels.cpu.instructions.instructions import Instructions
from llmbuild.compiler.kernels.cpu.packed_words import LIMIT, Product, groups, multiply_rows, place, words
from llmbuild.compiler.kernels.cpu.rounding import Rounding
from llmbuild.compiler.kernels.cpu.tile import LANES, TILE_COLUMNS, row_shape
from llmbuild.quantization.scheme import Scheme

EXACT = {
    "NK": Product(packed_nk.multiply_row, multiply_rows, LIMIT),
    "KN": Product(packed_kn.multiply_row, multiply_rows, LIMIT),
}
"""Products in float32, by layout."""


def serves(scheme: Scheme, outputs: int) -> bool:
    """Whether the kernels take the scheme, and layers of so many outputs."""
    least = packed_kn.COLUMNS if scheme.inputs_first else TILE_COLUMNS
    return scheme.layout in EXACT and scheme.has_cpu_kernels and outputs >= least


def rounded(by: Instructions, scheme: Scheme, depth: int) -> Callable[[Rounding], Product] | None:
    """What makes the products of rounded rows, where there are such for the scheme and the inputs."""
    if not scheme.rounds_activations or words(scheme, depth) < LANES:
        return None
    return packed_nk_int8.product if packed_nk_int8.serves(by, scheme, depth) else packed_nk_int16.product


def serves_level(by: Instructions, scheme: Scheme, depth: int, single: bool) -> bool:
    """Whether a level's instructions are faster for rounded rows, or a single one: products of bytes are, not those of pairs of
    16 bits, and those of matrices only where there are more rows."""
    return rounded(by, scheme, depth) is packed_nk_int8.product and not (single and by.side > 1)


def _product(rounding: Rounding | None, scheme: Scheme, depth: int) -> Product:
    """How rows are multiplied that are rounded, or with None are not."""
    product = None if rounding is None else rounded(rounding.by, scheme, depth)
    return EXACT[scheme.layout] if product is None or rounding is None else product(rounding)


def vector_kernel(
    rounding: Rounding | None, scheme: Scheme, depth: int, before: int, dtype: str, scale_dtype: str, out: str
) -> Any:
    """x [1 x before, 1, depth] times q, s -> y [1 x before, 1, N]: the decode kernel."""
    one = _product(rounding, scheme, depth).one

    @T.prim_func(private=True, s_tir=True)
    def packed_vector(x_handle: T.handle, q_handle: T.handle, s_handle: T.handle, y_handle: T.handle) -> None:
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
        columns = T.int64()
        x = T.match_buffer(x_handle, row_shape(before, 1, 0, depth), dtype)
        q = T.match_buffer(q_handle, place(scheme, columns, words(scheme, depth)), "uint32")
        s = T.match_buffer(s_handle, place(scheme, columns, groups(scheme, depth)), scale_dtype)
        y = T.match_buffer(y_handle, row_shape(before, 1, 0, columns), out)
        one(x, q, s, y, 0, scheme, columns, depth, out, before, 0)

    return packed_vector


def matrix_kernel(
    rounding: Rounding | None,
    scheme: Scheme,
    depth: int,
    before: int,
    after: int,
    dtype: str,
    scale_dtype: str,
    out: str,
) -> Any:
    """x [1 x before, rows, 1 x after, depth] times q, s -> y [1 x before, rows, 1 x after, N], for any number of rows."""
    product = _product(rounding, scheme, depth)
    one, many, limit = product.one, product.many, product.limit

    @T.prim_func(private=True, s_tir=True)
    def packed_matrix(x_handle: T.handle, q_handle: T.handle, s_handle: T.handle, y_handle: T.handle) -> None:
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
        rows = T.int64()
        columns = T.int64()
        x = T.match_buffer(x_handle, row_shape(before, rows, after, depth), dtype)
        q = T.match_buffer(q_handle, place(scheme, columns, words(scheme, depth)), "uint32")
        s = T.match_buffer(s_handle, place(scheme, columns, groups(scheme, depth)), scale_dtype)
        y = T.match_buffer(y_handle, row_shape(before, rows, after, columns), out)
        if rows <= limit:
            for row in T.serial(rows):
                one(x, q, s, y, row, scheme, columns, depth, out, before, after)
        else:
            many(x, q, s, y, scheme, rows, columns, depth, out, before, after)

    return packed_matrix
