"""Products with weights of 4 bits in groups of 32, in the layout NK (see `packed_words`), by products of bytes (see
`instructions`).

The rows of x are rounded to bytes once (see `rounding`).  The weights' order on disk needs no shuffle: of a word of eight, one
AND gives the even elements as four bytes, a shift and an AND the odd ones.  The zero point leaves the loop:
sum (q - 7) x = sum q x - 7 sum x.

A row or a few: weights are read once a row, a column or some columns at a time, and words are asked for some columns ahead.
Many rows: see `packed_nk_int8_rows`; with two planes and sums of 16 bits that takes longer than the float32 tile of
`packed_words`, which serves then.
"""

from __future__ import annotations

from functools import reduce
from operator import add
from typing import Any

from tvm.script import tirx as T

from llmbuild.compiler.kernels.cpu.instructions.instructions import Instructions
from llmbuild.compiler.kernels.cpu.packed_bytes import LAYOUT, STEP, ZERO, bytes_of, every
from llmbuild.compiler.kernels.cpu.packed_nk_int8_rows import multiply_rounded
from llmbuild.compiler.kernels.cpu.packed_words import Product, group_scales, multiply_rows, packing
from llmbuild.compiler.kernels.cpu.rounding import PARTS, Rounding, lanes, round_words, total, wide
from llmbuild.compiler.kernels.cpu.tile import LANES, ask_for, at, block_start, lane_sum
from llmbuild.quantization.scheme import Scheme

CHAINS = 2
"""Vectors that add up independently of each other, at least."""
AHEAD = 8
"""Columns between the one that is read and the one that is asked for."""
GEMV_LIMIT = 6
"""Up to this many rows, one matrix-vector product a row is faster than unpacking panels."""


def steps(by: Instructions, depth: int) -> int:
    """Vectors of words that a row has, the last of which may overlap with the one before."""
    return -(-depth // 8 // by.words)


def start(by: Instructions, step: Any, depth: int) -> Any:
    """The first word of a vector."""
    whole = depth // 8 % by.words == 0
    return step * by.words if whole else T.min(step * by.words, depth // 8 - by.words)


def narrow(by: Instructions) -> int:
    """The lanes that eight words have."""
    return LANES * by.lanes // by.words


def summed(values: Any, count: int) -> Any:
    """The sums of neighbours in a vector of eight: as many as `count`."""
    each = LANES // count
    return reduce(add, [values[T.ramp(lane, each, count)] for lane in range(each)])


@T.macro
def round_row(x, row, planes, zero, scales, by, count, scheme, depth, before, after):
    """x[row, :] in `count` planes: planes[step, :, :] are the words of the even and the odd elements of h, and those of l.  For
    the lanes of a step, zero has -ZERO times the sum of the elements, and scales their scale; where a step overlaps with the one
    before, that is 0."""
    high = T.alloc_buffer((8, LANES), "int32", scope="global")
    low = T.alloc_buffer((8, LANES), "int32", scope="global")
    found = T.alloc_buffer((1, LANES), "float32", scope="global")
    sums = T.alloc_buffer((LANES,), "int32", scope="global")
    for p in T.serial(steps(by, depth)):
        for h in T.serial(by.words // LANES):
            round_words(
                x, row, 0, start(by, p, depth) + h * LANES, high, low, found, (0,), count, scheme, depth, before, after
            )
            planes[p, 0, lanes(h * LANES)] = bytes_of(high, 0)
            planes[p, 1, lanes(h * LANES)] = bytes_of(high, 1)
            if count == 1:
                sums[lanes(0)] = total(high, 8)
            else:
                planes[p, 2, lanes(h * LANES)] = bytes_of(low, 0)
                planes[p, 3, lanes(h * LANES)] = bytes_of(low, 1)
                sums[lanes(0)] = total(high, 8) * wide(T.int32(PARTS)) + total(low, 8)
            zero[p, T.ramp(h * narrow(by), 1, narrow(by))] = summed(sums, narrow(by)) * T.broadcast(
                T.int32(-ZERO), narrow(by)
            )
            for j in T.vectorized(narrow(by)):
                scales[p, h * narrow(by) + j] = T.Select(
                    start(by, p, depth) + h * LANES + j * (LANES // narrow(by)) < p * by.words,
                    T.float32(0),
                    found[0, j * (LANES // narrow(by))],
                )


def products(words: Any, planes: Any, step: Any, by: Instructions, count: int) -> Any:
    """The sums of the products of a step's words with x in one or two planes, without the scales: int32 x `by.lanes`."""
    even, odd = by.unpacked(words, by.words)
    plane = [planes[step, part, every(by.words)] for part in range(2 * count)]
    high = by.add_bytes(None, [(even, plane[0]), (odd, plane[1])])
    if count == 1:
        return high
    shifted = T.shift_left(high, T.broadcast(T.int32(7), by.lanes))
    return by.add_bytes(shifted, [(even, plane[2]), (odd, plane[3])])


@T.macro
def add_words(q, s, planes, zero, scales, acc, place, column, step, by, count, depth):
    """acc[place, :] += a step's words of a column times the rounded row."""
    acc[place, every(by.lanes)] = acc[place, every(by.lanes)] + T.Cast(
        f"float32x{by.lanes}",
        products(q[column, T.ramp(start(by, step, depth), 1, by.words)], planes, step, by, count)
        + zero[step, every(by.lanes)],
    ) * (group_scales(s, column, start(by, step, depth) // 4, by.words // 4, by.lanes) * scales[step, every(by.lanes)])


def chains(by: Instructions) -> int:
    """Vectors of an output that add up independently of each other: several outputs do so themselves."""
    return max(1, CHAINS // by.outputs)


def column(by: Instructions, block: Any, output: int, columns: Any) -> Any:
    """The column of an output of a block."""
    return block if by.outputs == 1 else block_start(block, by.outputs, columns) + output


def dot(acc: Any, by: Instructions, output: int) -> Any:
    """The sum of all lanes of an output."""
    return reduce(add, (lane_sum(acc, output * chains(by) + chain, by.lanes) for chain in range(chains(by))))


@T.macro
def multiply_row(x, q, s, y, row, scheme, columns, by, count, depth, out, before, after):
    """y[row, :] = x[row, :] times q, s."""
    planes = T.alloc_buffer((steps(by, depth), 2 * count, by.words), "int32")
    zero = T.alloc_buffer((steps(by, depth), by.lanes), "int32")
    scales = T.alloc_buffer((steps(by, depth), by.lanes), "float32")
    round_row(x, row, planes, zero, scales, by, count, scheme, depth, before, after)
    for block in T.parallel((columns + by.outputs - 1) // by.outputs):
        acc = T.alloc_buffer((by.outputs * chains(by), by.lanes), "float32", scope="global")
        for r in T.unroll(by.outputs * chains(by)):
            acc[r, every(by.lanes)] = T.broadcast(T.float32(0), by.lanes)
        for p in T.serial(steps(by, depth) // chains(by)):
            for r in T.unroll(by.outputs):
                T.evaluate(
                    ask_for(q, T.min(column(by, block, r, columns) + AHEAD, columns - 1), p * (by.words * chains(by)))
                )
            for r in T.unroll(by.outputs):
                for c in T.unroll(chains(by)):
                    add_words(
                        q,
                        s,
                        planes,
                        zero,
                        scales,
                        acc,
                        r * chains(by) + c,
                        column(by, block, r, columns),
                        p * chains(by) + c,
                        by,
                        count,
                        depth,
                    )
        if steps(by, depth) % chains(by) != 0:
            add_words(
                q,
                s,
                planes,
                zero,
                scales,
                acc,
                0,
                column(by, block, 0, columns),
                steps(by, depth) - 1,
                by,
                count,
                depth,
            )
        for r in T.unroll(by.outputs):
            y[at(before, after, row, column(by, block, r, columns))] = T.Cast(out, dot(acc, by, r))


def serves(by: Instructions, scheme: Scheme, depth: int) -> bool:
    """Whether the products take the scheme, and inputs of this number."""
    return packing(scheme) == packing(LAYOUT) and depth % STEP == 0 and depth // 8 >= by.words


def rounds_many(rounding: Rounding) -> bool:
    """Whether many rows are rounded too: two planes need sums of words, and pay where these come from the instructions."""
    return rounding.planes == 1 or rounding.by.unfinished[0] == "int32"


def product(rounding: Rounding) -> Product:
    """Rounded rows times packed weights."""

    @T.macro
    def one(x, q, s, y, row, scheme, columns, depth, out, before, after):
        multiply_row(x, q, s, y, row, scheme, columns, rounding.by, rounding.planes, depth, out, before, after)

    @T.macro
    def many(x, q, s, y, scheme, rows, columns, depth, out, before, after):
        multiply_rounded(x, q, s, y, scheme, rows, columns, rounding.by, rounding.planes, depth, out, before, after)

    return Product(one, many if rounds_many(rounding) else multiply_rows, GEMV_LIMIT)
