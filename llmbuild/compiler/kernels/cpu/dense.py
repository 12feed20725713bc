"""CPU kernels for unquantized linear layers with the weight as it lies on disk: w [N, K], row-major.

Vector times matrix: lanes along K, 4 outputs at once, each with 2 chains of multiply-adds to hide their latency.
Matrix times matrix: a panel of K x 16 weights is transposed once (and converted to float32), then used by a register
tile for all rows of x.  Sums are float32 whatever the types of x, w and y.

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

GEMV_LIMIT = 2
"""Up to this many rows, one matrix-vector product a row is faster than transposing panels."""

STEP = 2 * LANES


@T.macro
def multiply_vector(xs, w, y, row, acc, rest, columns, block, depth, out, before, after):
    """y[row, 4 columns of block] = w @ xs."""
    for r in T.unroll(GEMV_ROWS):
        for h in T.unroll(2):
            for j in T.vectorized(LANES):
                acc[r * 2 + h, j] = T.float32(0)
    for p in T.serial(depth // STEP):
        for h in T.unroll(2):
            for r in T.unroll(GEMV_ROWS):
                for j in T.vectorized(LANES):
                    acc[r * 2 + h, j] = acc[r * 2 + h, j] + xs[row, p * STEP + h * LANES + j] * f32(
                        w[block_start(block, GEMV_ROWS, columns) + r, p * STEP + h * LANES + j]
                    )
    for r in T.unroll(GEMV_ROWS):
        rest[r] = T.float32(0)
        for k in T.serial(depth % STEP):
            rest[r] = rest[r] + xs[row, depth // STEP * STEP + k] * f32(
                w[block_start(block, GEMV_ROWS, columns) + r, depth // STEP * STEP + k]
            )
    for r in T.unroll(GEMV_ROWS):
        y[at(before, after, row, block_start(block, GEMV_ROWS, columns) + r)] = T.Cast(
            out, (lane_sum(acc, r * 2) + lane_sum(acc, r * 2 + 1)) + rest[r]
        )


@T.macro
def transpose_panel(w, panel, square, columns, block, depth):
    """panel[depth, 16] = the weights of the 16 columns of block in float32, by squares of 16 x 8."""
    for p in T.serial(depth // LANES):
        for n in T.unroll(TILE_COLUMNS):
            for i in T.vectorized(LANES):
                square[n, i] = f32(w[block_start(block, TILE_COLUMNS, columns) + n, p * LANES + i])
        for i in T.unroll(LANES):
            for h in T.unroll(2):
                for j in T.vectorized(LANES):
                    panel[p * LANES + i, h * LANES + j] = square[h * LANES + j, i]
    for k in T.serial(depth % LANES):
        for n in T.serial(TILE_COLUMNS):
            panel[depth // LANES * LANES + k, n] = f32(
                w[block_start(block, TILE_COLUMNS, columns) + n, depth // LANES * LANES + k]
            )


def vector_kernel(depth: int, before: int, dtype: str, weight_dtype: str, out: str) -> Any:
    """x [1 x before, 1, depth] times w -> y [1 x before, 1, N]: the decode kernel."""

    @T.prim_func(private=True, s_tir=True)
    def dense_vector(x_handle: T.handle, w_handle: T.handle, y_handle: T.handle) -> None:
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
        columns = T.int64()
        x = T.match_buffer(x_handle, row_shape(before, 1, 0, depth), dtype)
        w = T.match_buffer(w_handle, (columns, depth), weight_dtype)
        y = T.match_buffer(y_handle, row_shape(before, 1, 0, columns), out)
        xs = T.alloc_buffer((1, depth), "float32")
        copy_float32(x, xs, 1, depth, before, 0)
        for block in T.parallel((columns + GEMV_ROWS - 1) // GEMV_ROWS):
            acc = T.alloc_buffer((GEMV_ROWS * 2, LANES), "float32", scope="global")
            rest = T.alloc_buffer((GEMV_ROWS,), "float32", scope="global")
            multiply_vector(xs, w, y, 0, acc, rest, columns, block, depth, out, before, 0)

    return dense_vector


def matrix_kernel(depth: int, before: int, after: int, dtype: str, weight_dtype: str, out: str) -> Any:
    """x [1 x before, rows, 1 x after, depth] times w -> y [1 x before, rows, 1 x after, N], for any number of rows."""

    @T.prim_func(private=True, s_tir=True)
    def dense_matrix(x_handle: T.handle, w_handle: T.handle, y_handle: T.handle) -> None:
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
        rows = T.int64()
        columns = T.int64()
        x = T.match_buffer(x_handle, row_shape(before, rows, after, depth), dtype)
        w = T.match_buffer(w_handle, (columns, depth), weight_dtype)
        y = T.match_buffer(y_handle, row_shape(before, rows, after, columns), out)
        xs = T.alloc_buffer((rows, depth), "float32")
        copy_float32(x, xs, rows, depth, before, after)
        if rows <= GEMV_LIMIT:
            for row in T.serial(rows):
                for block in T.parallel((columns + GEMV_ROWS - 1) // GEMV_ROWS):
                    acc = T.alloc_buffer((GEMV_ROWS * 2, LANES), "float32", scope="global")
                    rest = T.alloc_buffer((GEMV_ROWS,), "float32", scope="global")
                    multiply_vector(xs, w, y, row, acc, rest, columns, block, depth, out, before, after)
        else:
            for block in T.parallel((columns + TILE_COLUMNS - 1) // TILE_COLUMNS):
                panel = T.alloc_buffer((depth, TILE_COLUMNS), "float32")
                tile = T.alloc_buffer((TILE_ROWS, 2, LANES), "float32", scope="global")
                square = T.alloc_buffer((TILE_COLUMNS, LANES), "float32", scope="global")
                transpose_panel(w, panel, square, columns, block, depth)
                multiply_panel(xs, panel, y, tile, rows, columns, block, depth, out, before, after)

    return dense_matrix
