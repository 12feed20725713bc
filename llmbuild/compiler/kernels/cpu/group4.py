"""CPU kernels for weights of 4 bits in groups of 32 that share a scale, in the layout in which they lie on disk:
q [N, K/8] uint32 with element i of a word at bits 4i, s [N, K/32]; the value is (q - 7) * s.

Vector times matrix: a vector load of 8 words holds 64 weights, 2 groups; lane j of (words >> 4i) & 15 is element 8j + i.
x is therefore copied once into that order, after which all loads are contiguous.  The zero point leaves the inner loop:
sum (q - 7) x = sum q x - 7 sum x, and the second sum is the same for every output.

Matrix times matrix: a panel of K x 16 weights is dequantized once, then used by a register tile for all rows of x.

The number of outputs is dynamic, so that layers with equal K share one function.  N must be at least 16.
"""

from __future__ import annotations

from typing import Any

from tvm.script import tirx as T

from llmbuild.compiler.kernels.cpu.tile import (
    GEMV_ROWS,
    LANES,
    TILE_COLUMNS,
    TILE_ROWS,
    at,
    block_start,
    copy_float32,
    f32,
    lane_sum,
    multiply_panel,
    row_shape,
)
from llmbuild.quantization.scheme import CPU_GROUP

GROUP = CPU_GROUP
ZERO = 7
GEMV_LIMIT = 2
"""Up to this many rows, one matrix-vector product a row is faster than dequantizing panels."""


def nibble(words: Any, index: int) -> Any:
    """Element `index` (0 to 7) of uint32 words, as float32, without the zero point."""
    bits = T.bitwise_and(T.shift_right(words, T.uint32(4 * index)), T.uint32(15))
    return T.Cast("float32", T.Cast("int32", bits))


@T.macro
def arrange(x, row, xp, xz, depth, before, after):
    """Copy x[row, :] into the order of the lanes (xp), and gather -7 times the sums of each lane (xz)."""
    for p in T.serial(depth // 64):
        for j in T.vectorized(LANES):
            xz[p * LANES + j] = T.float32(0)
        for i in T.unroll(8):
            for j in T.vectorized(LANES):
                xp[p * 64 + i * 8 + j] = f32(x[at(before, after, row, p * 64 + j * 8 + i)])
            for j in T.vectorized(LANES):
                xz[p * LANES + j] = xz[p * LANES + j] - T.float32(ZERO) * xp[p * 64 + i * 8 + j]
    if depth % 64 != 0:
        for j in T.vectorized(4):
            xz[depth // 64 * LANES + j] = T.float32(0)
        for i in T.unroll(8):
            for j in T.vectorized(4):
                xp[depth // 64 * 64 + i * 4 + j] = f32(x[at(before, after, row, depth // 64 * 64 + j * 8 + i)])
            for j in T.vectorized(4):
                xz[depth // 64 * LANES + j] = (
                    xz[depth // 64 * LANES + j] - T.float32(ZERO) * xp[depth // 64 * 64 + i * 4 + j]
                )


@T.macro
def multiply_vector(xp, xz, q, s, y, row, acc, part, columns, block, depth, out, before, after):
    """y[row, 4 columns of block] from an arranged row of x."""
    for r in T.unroll(GEMV_ROWS):
        for j in T.vectorized(LANES):
            acc[r, j] = T.float32(0)
    for p in T.serial(depth // 64):
        for r in T.unroll(GEMV_ROWS):
            for j in T.vectorized(LANES):
                part[r, j] = xz[p * LANES + j]
        for i in T.unroll(8):
            for r in T.unroll(GEMV_ROWS):
                for j in T.vectorized(LANES):
                    part[r, j] = part[r, j] + xp[p * 64 + i * 8 + j] * nibble(
                        q[block_start(block, GEMV_ROWS, columns) + r, p * 8 + j], i
                    )
        for r in T.unroll(GEMV_ROWS):
            for j in T.vectorized(LANES):
                acc[r, j] = acc[r, j] + part[r, j] * T.Select(
                    j < 4,
                    f32(s[block_start(block, GEMV_ROWS, columns) + r, p * 2]),
                    f32(s[block_start(block, GEMV_ROWS, columns) + r, p * 2 + 1]),
                )
    if depth % 64 != 0:
        for r in T.unroll(GEMV_ROWS):
            for j in T.vectorized(4):
                part[r, j] = xz[depth // 64 * LANES + j]
        for i in T.unroll(8):
            for r in T.unroll(GEMV_ROWS):
                for j in T.vectorized(4):
                    part[r, j] = part[r, j] + xp[depth // 64 * 64 + i * 4 + j] * nibble(
                        q[block_start(block, GEMV_ROWS, columns) + r, depth // 64 * 8 + j], i
                    )
        for r in T.unroll(GEMV_ROWS):
            for j in T.vectorized(4):
                acc[r, j] = acc[r, j] + part[r, j] * f32(
                    s[block_start(block, GEMV_ROWS, columns) + r, depth // GROUP - 1]
                )
    for r in T.unroll(GEMV_ROWS):
        y[at(before, after, row, block_start(block, GEMV_ROWS, columns) + r)] = T.Cast(out, lane_sum(acc, r))


@T.macro
def dequantize_panel(q, s, panel, words, scales, columns, block, depth):
    """panel[depth, 16] = the weights of the 16 columns of block, transposed."""
    for g in T.serial(depth // GROUP):
        for h in T.unroll(2):
            for j in T.vectorized(LANES):
                scales[h, j] = f32(s[block_start(block, TILE_COLUMNS, columns) + h * LANES + j, g])
        for w in T.serial(4):
            for h in T.unroll(2):
                for j in T.vectorized(LANES):
                    words[h, j] = q[block_start(block, TILE_COLUMNS, columns) + h * LANES + j, g * 4 + w]
            for i in T.unroll(8):
                for h in T.unroll(2):
                    for j in T.vectorized(LANES):
                        panel[g * GROUP + w * 8 + i, h * LANES + j] = (
                            nibble(words[h, j], i) - T.float32(ZERO)
                        ) * scales[h, j]


@T.macro
def multiply_rows(x, q, s, y, rows, columns, depth, out, before, after):
    """y = x times q, s, for many rows."""
    xs = T.alloc_buffer((rows, depth), "float32")
    copy_float32(x, xs, rows, depth, before, after)
    for block in T.parallel((columns + TILE_COLUMNS - 1) // TILE_COLUMNS):
        panel = T.alloc_buffer((depth, TILE_COLUMNS), "float32")
        words = T.alloc_buffer((2, LANES), "uint32", scope="global")
        scales = T.alloc_buffer((2, LANES), "float32", scope="global")
        tile = T.alloc_buffer((TILE_ROWS, 2, LANES), "float32", scope="global")
        dequantize_panel(q, s, panel, words, scales, columns, block, depth)
        multiply_panel(xs, panel, y, tile, rows, columns, block, depth, out, before, after)


def vector_kernel(depth: int, before: int, dtype: str, scale_dtype: str, out: str) -> Any:
    """x [1 x before, 1, depth] times q, s -> y [1 x before, 1, N]: the decode kernel."""

    @T.prim_func(private=True, s_tir=True)
    def group4_vector(x_handle: T.handle, q_handle: T.handle, s_handle: T.handle, y_handle: T.handle) -> None:
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
        columns = T.int64()
        x = T.match_buffer(x_handle, row_shape(before, 1, 0, depth), dtype)
        q = T.match_buffer(q_handle, (columns, depth // 8), "uint32")
        s = T.match_buffer(s_handle, (columns, depth // GROUP), scale_dtype)
        y = T.match_buffer(y_handle, row_shape(before, 1, 0, columns), out)
        xp = T.alloc_buffer((depth,), "float32")
        xz = T.alloc_buffer((depth // 8 + LANES,), "float32")
        arrange(x, 0, xp, xz, depth, before, 0)
        for block in T.parallel((columns + GEMV_ROWS - 1) // GEMV_ROWS):
            acc = T.alloc_buffer((GEMV_ROWS, LANES), "float32", scope="global")
            part = T.alloc_buffer((GEMV_ROWS, LANES), "float32", scope="global")
            multiply_vector(xp, xz, q, s, y, 0, acc, part, columns, block, depth, out, before, 0)

    return group4_vector


def matrix_kernel(depth: int, before: int, after: int, dtype: str, scale_dtype: str, out: str) -> Any:
    """x [1 x before, rows, 1 x after, depth] times q, s -> y [1 x before, rows, 1 x after, N], for any number of rows."""

    @T.prim_func(private=True, s_tir=True)
    def group4_matrix(x_handle: T.handle, q_handle: T.handle, s_handle: T.handle, y_handle: T.handle) -> None:
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
        rows = T.int64()
        columns = T.int64()
        x = T.match_buffer(x_handle, row_shape(before, rows, after, depth), dtype)
        q = T.match_buffer(q_handle, (columns, depth // 8), "uint32")
        s = T.match_buffer(s_handle, (columns, depth // GROUP), scale_dtype)
        y = T.match_buffer(y_handle, row_shape(before, rows, after, columns), out)
        if rows <= GEMV_LIMIT:
            xp = T.alloc_buffer((depth,), "float32")
            xz = T.alloc_buffer((depth // 8 + LANES,), "float32")
            for row in T.serial(rows):
                arrange(x, row, xp, xz, depth, before, after)
                for block in T.parallel((columns + GEMV_ROWS - 1) // GEMV_ROWS):
                    acc = T.alloc_buffer((GEMV_ROWS, LANES), "float32", scope="global")
                    part = T.alloc_buffer((GEMV_ROWS, LANES), "float32", scope="global")
                    multiply_vector(xp, xz, q, s, y, row, acc, part, columns, block, depth, out, before, after)
        else:
            multiply_rows(x, q, s, y, rows, columns, depth, out, before, after)

    return group4_matrix
