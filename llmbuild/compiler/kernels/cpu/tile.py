"""Common parts of the CPU kernels: conversions, the horizontal sum, and the register tile of a matrix product.

The kernels are written for 8 float32 lanes (AVX2, and two registers' worth of NEON or SSE); LLVM splits or joins them for
the target.  They use parallel, vectorized and unrolled loops only, no intrinsics, so that one text serves every CPU.
Small buffers have the scope "global": below 1 KiB TVM puts those on the stack, from where LLVM promotes them to
registers; the scope "local" would give a heap workspace with a store after each multiply-add.
"""

from __future__ import annotations

from typing import Any

from tvm import tirx
from tvm.script import tirx as T

LANES = 8
"""float32 elements a vector."""

TILE_ROWS = 6
"""Rows of x in a register tile: 6 x 2 vectors of accumulators leave 4 of 16 registers for operands."""

TILE_COLUMNS = 2 * LANES
"""Outputs in a register tile, and the width of a panel."""

GEMV_ROWS = 4
"""Outputs that one step of a matrix-vector product computes together, sharing each load of x."""


def f32(value: Any) -> Any:
    """The expression in float32."""
    return value if value.ty.dtype == "float32" else T.Cast("float32", value)


def lane_sum(values: Any, row: Any, lanes: int = LANES) -> Any:
    """The sum of the lanes of values[row, :], as a tree."""

    def every(step: int, first: int) -> Any:
        if step == lanes:
            return values[row, first]
        return every(2 * step, first) + every(2 * step, first + step)

    return every(1, 0)


def block_start(block: Any, width: int, extent: Any) -> Any:
    """Where block number `block` starts when the last block is moved back to end at `extent` (overlapping, not cut)."""
    return T.min(block * width, extent - width)


def clamped_row(block: Any, lane: int, extent: Any, height: int = TILE_ROWS) -> Any:
    """Row `lane` of a block of `height`.  The last block is moved back as in `block_start`; where there are fewer rows
    than the tile has, the last one is computed several times, with the same result each time."""
    start = T.max(T.min(block * height, extent - height), 0)
    return T.min(start + lane, extent - 1)


def row_shape(before: int, rows: Any, after: int, columns: Any) -> tuple[Any, ...]:
    """The shape of a matrix whose rows dimension has unit dimensions around it: [1 x before, rows, 1 x after, columns]."""
    return (1,) * before + (rows,) + (1,) * after + (columns,)


def at(before: int, after: int, row: Any, column: Any) -> tuple[Any, ...]:
    """The indices of an element of a matrix of `row_shape`.  (A second buffer over the same data would be simpler to
    read; the pass that renames functions for system libraries of this TVM release fails on such declarations.)"""
    return (0,) * before + (row,) + (0,) * after + (column,)


def crossed(one: Any, other: Any, step: int, upper: bool) -> Any:
    """Of two vectors the lanes of which bit `step` is clear, or with `upper` is set, those of `other` after those of `one`."""
    chosen = [lane % (2 * step) % step + lane // (2 * step) * 2 * step + step * upper for lane in range(LANES)]
    order = [place + LANES * (lane % (2 * step) >= step) for lane, place in enumerate(chosen)]
    return tirx.Shuffle([one, other], [tirx.IntImm("int32", lane) for lane in order])


def pair(index: Any, step: int) -> Any:
    """The first row of a pair that is `step` apart, of eight rows."""
    return index // step * (2 * step) + index % step


@T.macro
def exchange(rows, into, step):
    """Blocks of `step` x `step` beside the diagonal of blocks twice as large change places."""
    for i in T.unroll(LANES // 2):
        into[pair(i, step), T.ramp(0, 1, LANES)] = crossed(
            rows[pair(i, step), T.ramp(0, 1, LANES)], rows[pair(i, step) + step, T.ramp(0, 1, LANES)], step, False
        )
        into[pair(i, step) + step, T.ramp(0, 1, LANES)] = crossed(
            rows[pair(i, step), T.ramp(0, 1, LANES)], rows[pair(i, step) + step, T.ramp(0, 1, LANES)], step, True
        )


@T.macro
def transpose(rows, spare):
    """spare[8, 8] = rows[8, 8] transposed; rows is overwritten."""
    exchange(rows, spare, 4)
    exchange(spare, rows, 2)
    exchange(rows, spare, 1)


def ask_for(buffer: Any, *indices: Any) -> Any:
    """A prefetch into all caches, for reading."""
    address = T.address_of(buffer[indices])
    return T.call_llvm_intrin("void", "llvm.prefetch.p0", address, T.int32(0), T.int32(3), T.int32(1))


@T.macro
def copy_float32(x, xs, rows, depth, before, after):
    """xs[rows, depth] = x in float32, once, instead of a conversion in each inner loop."""
    for m in T.serial(rows):
        for k in T.serial(depth):
            xs[m, k] = f32(x[at(before, after, m, k)])


@T.macro
def store_tile(acc, y, tile, rows, columns, block, height, width, out, before, after):
    """y[`height` rows of tile, 16 columns of block] = acc[height, 16 / width, width]."""
    for m in T.unroll(height):
        for h in T.unroll(TILE_COLUMNS // width):
            for j in T.vectorized(width):
                y[
                    at(
                        before,
                        after,
                        clamped_row(tile, m, rows, height),
                        block_start(block, TILE_COLUMNS, columns) + h * width + j,
                    )
                ] = T.Cast(out, acc[m, h, j])


@T.macro
def multiply_panel(x, panel, y, acc, rows, columns, block, depth, out, before, after):
    """y[:, 16 columns of block] = x[rows, depth] @ panel[depth, 16], one register tile after another."""
    for tile in T.serial((rows + TILE_ROWS - 1) // TILE_ROWS):
        for m in T.unroll(TILE_ROWS):
            for h in T.unroll(2):
                for j in T.vectorized(LANES):
                    acc[m, h, j] = T.float32(0)
        for k in T.serial(depth):
            for m in T.unroll(TILE_ROWS):
                for h in T.unroll(2):
                    for j in T.vectorized(LANES):
                        acc[m, h, j] = acc[m, h, j] + x[clamped_row(tile, m, rows), k] * panel[k, h * LANES + j]
        store_tile(acc, y, tile, rows, columns, block, TILE_ROWS, LANES, out, before, after)
