"""Products with weights of 4 bits in groups of 32, in the layout NK (see `packed_words`), by products of bytes (see
`instructions`).

The rows of x are rounded to bytes once (see `rounding`).  The weights' order on disk needs no shuffle: of a word of eight, one
AND gives the even elements as four bytes, a shift and an AND the odd ones.  The zero point leaves the loop:
sum (q - 7) x = sum q x - 7 sum x.

A row or a few: weights are read once a row, column by column, so that the memory's own prefetch follows, and words are asked for
some columns ahead.  Many rows: a panel of 16 columns is unpacked once, then used by a register tile for all rows; with two
planes that takes longer than the float32 tile of `packed_words`, which serves then.
"""

from __future__ import annotations

from typing import Any

from tvm import tirx
from tvm.script import tirx as T

from llmbuild.compiler.kernels.cpu.instructions.instructions import Instructions
from llmbuild.compiler.kernels.cpu.packed_words import Product, multiply_rows, packing, two_scales
from llmbuild.compiler.kernels.cpu.rounding import PARTS, Rounding, lanes, round_words, total, wide
from llmbuild.compiler.kernels.cpu.tile import (
    LANES,
    TILE_COLUMNS,
    ask_for,
    at,
    block_start,
    clamped_row,
    f32,
    lane_sum,
    store_tile,
)
from llmbuild.quantization.scheme import SCHEMES, Scheme

LAYOUT = SCHEMES["q4f32_1"]
GROUP, ZERO = LAYOUT.group_size, LAYOUT.max_int
STEP = 8 * LANES
"""Elements of one vector of words: two groups.  The depth of a product must be a multiple of it."""
CHAINS = 2
"""Vectors that add up independently of each other."""
AHEAD = 8
"""Columns between the one that is read and the one that is asked for."""
GEMV_LIMIT = 6
"""Up to this many rows, one matrix-vector product a row is faster than unpacking panels."""
ROWS = 4
"""Rows of x in a register tile: 4 x 2 vectors of sums leave 8 of 16 registers for operands."""


def unpacked(words: Any) -> tuple[Any, Any]:
    """The even and the odd elements of a vector of words, as words of bytes."""
    mask = wide(T.uint32(0x0F0F0F0F))
    return T.bitwise_and(words, mask), T.bitwise_and(T.shift_right(words, wide(T.uint32(4))), mask)


def products(words: Any, planes: Any, word: Any, rounding: Rounding) -> Any:
    """The sums of the products of words with x in one or two planes, without the scales: int32x8, in whose lanes a group's sum
    may be anyhow."""
    even, odd = unpacked(words)
    plane = [planes[0, part, lanes(word)] for part in range(2 * rounding.planes)]
    high = rounding.by.add_bytes(None, [(even, plane[0]), (odd, plane[1])])
    if rounding.planes == 1:
        return high
    return rounding.by.add_bytes(T.shift_left(high, wide(T.int32(7))), [(even, plane[2]), (odd, plane[3])])


def bytes_of(values: Any, first: int) -> Any:
    """Every second row of small signed numbers [8, LANES], from `first` on, as the bytes of words."""
    word = None
    for index in range(4):
        low = T.bitwise_and(values[first + 2 * index, lanes(0)], wide(T.int32(255)))
        part = T.shift_left(low, wide(T.int32(8 * index)))
        word = part if word is None else T.bitwise_or(word, part)
    return word


@T.macro
def round_row(x, row, planes, sums, scales, place, count, scheme, depth, before, after):
    """x[row, :] in `count` planes: planes[place, :, :] are the words of the even and the odd elements of h, and those of l;
    sums[place, :] the sum of the elements of each word, scales[place, :, :] the scale of each."""
    high = T.alloc_buffer((8, LANES), "int32", scope="global")
    low = T.alloc_buffer((8, LANES), "int32", scope="global")
    for p in T.serial(depth // STEP):
        round_words(x, row, 0, p * LANES, high, low, scales, (place, p), count, scheme, depth, before, after)
        planes[place, 0, lanes(p * LANES)] = bytes_of(high, 0)
        planes[place, 1, lanes(p * LANES)] = bytes_of(high, 1)
        if count == 1:
            sums[place, lanes(p * LANES)] = total(high, 8)
        else:
            planes[place, 2, lanes(p * LANES)] = bytes_of(low, 0)
            planes[place, 3, lanes(p * LANES)] = bytes_of(low, 1)
            sums[place, lanes(p * LANES)] = total(high, 8) * wide(T.int32(PARTS)) + total(low, 8)


@T.macro
def add_words(q, s, planes, zero, scales, acc, column, chain, step, rounding):
    """acc[chain, :] += a vector of words of a column times the rounded row."""
    acc[chain, lanes(0)] = acc[chain, lanes(0)] + T.Cast(
        "float32x8",
        products(q[column, lanes(step * LANES)], planes, step * LANES, rounding) + zero[lanes(step * LANES)],
    ) * (two_scales(s, column, step * 2) * scales[0, step, lanes(0)])


@T.macro
def multiply_row(x, q, s, y, row, scheme, columns, rounding, depth, out, before, after):
    """y[row, :] = x[row, :] times q, s."""
    planes = T.alloc_buffer((1, 2 * rounding.planes, depth // 8), "int32")
    sums = T.alloc_buffer((1, depth // 8), "int32")
    zero = T.alloc_buffer((depth // 8,), "int32")
    scales = T.alloc_buffer((1, depth // STEP, LANES), "float32")
    round_row(x, row, planes, sums, scales, 0, rounding.planes, scheme, depth, before, after)
    for p in T.serial(depth // STEP):
        zero[lanes(p * LANES)] = sums[0, lanes(p * LANES)] * wide(T.int32(-ZERO))
    for column in T.parallel(columns):
        acc = T.alloc_buffer((CHAINS, LANES), "float32", scope="global")
        for c in T.unroll(CHAINS):
            acc[c, lanes(0)] = wide(T.float32(0))
        for p in T.serial(depth // (STEP * CHAINS)):
            T.evaluate(ask_for(q, T.min(column + AHEAD, columns - 1), p * LANES * CHAINS))
            for c in T.unroll(CHAINS):
                add_words(q, s, planes, zero, scales, acc, column, c, p * CHAINS + c, rounding)
        if depth // STEP % CHAINS != 0:
            add_words(q, s, planes, zero, scales, acc, column, 0, depth // STEP - 1, rounding)
        y[at(before, after, row, column)] = T.Cast(out, lane_sum(acc, 0) + lane_sum(acc, 1))


def every(by: Instructions) -> Any:
    """The indices of a vector of unfinished sums."""
    return T.ramp(0, 1, by.unfinished[1])


def nothing(by: Instructions) -> Any:
    """Unfinished sums that are zero."""
    dtype, count = by.unfinished
    return T.broadcast(tirx.IntImm(dtype, 0), count)


@T.macro
def unpack_panel(q, s, panel, factors, columns, block, depth):
    """panel[:, 0 and 1, 16] = the even and the odd elements of each word of the 16 columns of block; factors are their scales."""
    for w in T.serial(depth // 8):
        for j in T.vectorized(TILE_COLUMNS):
            panel[w, 1, j] = q[block_start(block, TILE_COLUMNS, columns) + j, w]
        for h in T.unroll(2):
            panel[w, 0, lanes(h * LANES)] = unpacked(panel[w, 1, lanes(h * LANES)])[0]
            panel[w, 1, lanes(h * LANES)] = unpacked(panel[w, 1, lanes(h * LANES)])[1]
    for g in T.serial(depth // GROUP):
        for j in T.vectorized(TILE_COLUMNS):
            factors[g, j] = f32(s[block_start(block, TILE_COLUMNS, columns) + j, g])


@T.macro
def multiply_group(panel, factors, planes, zero, scales, acc, sums, tile, rows, group, by):
    """acc[ROWS, 2, :] += a group of the panel times that of the tile's rows."""
    for m in T.unroll(ROWS):
        for h in T.unroll(2):
            sums[m, h, every(by)] = nothing(by)
    for w in T.unroll(4):
        for odd in T.unroll(2):
            for m in T.unroll(ROWS):
                for h in T.unroll(2):
                    sums[m, h, every(by)] = by.add_unfinished(
                        sums[m, h, every(by)],
                        panel[group * 4 + w, odd, lanes(h * LANES)],
                        wide(planes[clamped_row(tile, m, rows, ROWS), odd, group * 4 + w]),
                    )
    for m in T.unroll(ROWS):
        for h in T.unroll(2):
            acc[m, h, lanes(0)] = acc[m, h, lanes(0)] + T.Cast(
                "float32x8", by.finished(sums[m, h, every(by)]) + wide(zero[clamped_row(tile, m, rows, ROWS), group])
            ) * (
                factors[group, lanes(h * LANES)]
                * wide(scales[clamped_row(tile, m, rows, ROWS), group // 2, group % 2 * 4])
            )


@T.macro
def multiply_rounded(x, q, s, y, scheme, rows, columns, by, depth, out, before, after):
    """y = x times q, s, for many rows in one plane."""
    planes = T.alloc_buffer((rows, 2, depth // 8), "int32")
    words = T.alloc_buffer((rows, depth // 8), "int32")
    zero = T.alloc_buffer((rows, depth // GROUP), "int32")
    scales = T.alloc_buffer((rows, depth // STEP, LANES), "float32")
    for row in T.parallel(rows):
        round_row(x, row, planes, words, scales, row, 1, scheme, depth, before, after)
        for g in T.serial(depth // GROUP):
            zero[row, g] = T.int32(-ZERO) * (
                (words[row, g * 4] + words[row, g * 4 + 1]) + (words[row, g * 4 + 2] + words[row, g * 4 + 3])
            )
    for block in T.parallel((columns + TILE_COLUMNS - 1) // TILE_COLUMNS):
        panel = T.alloc_buffer((depth // 8, 2, TILE_COLUMNS), "uint32")
        factors = T.alloc_buffer((depth // GROUP, TILE_COLUMNS), "float32")
        acc = T.alloc_buffer((ROWS, 2, LANES), "float32", scope="global")
        sums = T.alloc_buffer((ROWS, 2, by.unfinished[1]), by.unfinished[0], scope="global")
        unpack_panel(q, s, panel, factors, columns, block, depth)
        for tile in T.serial((rows + ROWS - 1) // ROWS):
            for m in T.unroll(ROWS):
                for h in T.unroll(2):
                    acc[m, h, lanes(0)] = wide(T.float32(0))
            for g in T.serial(depth // GROUP):
                multiply_group(panel, factors, planes, zero, scales, acc, sums, tile, rows, g, by)
            store_tile(acc, y, tile, rows, columns, block, ROWS, out, before, after)


def serves(scheme: Scheme, depth: int) -> bool:
    """Whether the products take the scheme, and inputs of this number."""
    return packing(scheme) == packing(LAYOUT) and depth % STEP == 0


def product(rounding: Rounding) -> Product:
    """Rounded rows times packed weights."""

    @T.macro
    def one(x, q, s, y, row, scheme, columns, depth, out, before, after):
        multiply_row(x, q, s, y, row, scheme, columns, rounding, depth, out, before, after)

    @T.macro
    def many(x, q, s, y, scheme, rows, columns, depth, out, before, after):
        multiply_rounded(x, q, s, y, scheme, rows, columns, rounding.by, depth, out, before, after)

    return Product(one, many if rounding.planes == 1 else multiply_rows, GEMV_LIMIT)
