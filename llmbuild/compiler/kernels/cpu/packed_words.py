"""What the CPU kernels for packed weights share: the numbers of a word, and products with many rows.

A word of 32 bits has 8 numbers of 4 bits or 10 of 3, the first in the lowest bits; a weight is (number - zero) times the scale
that its group shares, and a group has whole words.  The layout NK keeps words as [outputs, inputs / numbers of a word], KN as
[inputs / numbers of a word, outputs], scales likewise; where the inputs are no multiple of a group, the last one is padded.

A number is taken out of its word by an AND alone and stands for itself times a power of two, by the inverse of which x was
multiplied before: that is exact, and saves a shift a weight.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tvm import tirx
from tvm.script import tirx as T

from llmbuild.compiler.kernels.cpu.tile import (
    LANES,
    TILE_COLUMNS,
    TILE_ROWS,
    at,
    block_start,
    copy_float32,
    f32,
    multiply_panel,
)
from llmbuild.quantization.scheme import Scheme

LIMIT = 2
"""Up to this many rows, one matrix-vector product a row is faster than dequantizing panels."""


@dataclass(frozen=True, slots=True)
class Product:
    """How rows of x are multiplied: macros for one row (x, q, s, y, row, scheme, columns, depth, out, before, after) and for
    many (x, q, s, y, scheme, rows, columns, …).  Up to `limit` rows, one product a row is faster."""

    one: Any
    many: Any
    limit: int


def packing(scheme: Scheme) -> tuple[int, int, str]:
    """What a scheme's packed weights are like, whatever the types of scales and sums."""
    return scheme.bits, scheme.group_size, scheme.layout


def groups(scheme: Scheme, depth: int) -> int:
    """The groups of `depth` inputs, the padded one included."""
    return -(-depth // scheme.group_size)


def words(scheme: Scheme, depth: int) -> int:
    """The words of `depth` inputs."""
    return groups(scheme, depth) * scheme.words_per_group


def place(scheme: Scheme, column: Any, word: Any) -> tuple[Any, Any]:
    """The indices of a word of an output, or of the scale of a group; and the shape of all, from the numbers of both."""
    return (word, column) if scheme.inputs_first else (column, word)


def blocks(strip: Any, most: int, width: int, columns: Any) -> Any:
    """The blocks of `width` outputs in a strip of at most `most`.  Where rows of words are far apart in memory, a thread goes
    along a strip of each before it takes the next, for the memory's sake."""
    return T.min(most, (columns + width - 1) // width - strip * most)


def number(word: Any, index: Any, scheme: Scheme) -> Any:
    """Number `index` of words, as float32, times the inverse of its `unit`."""
    low = T.uint32(scheme.bits * index)
    whole = T.bitwise_and(word, T.shift_left(T.uint32((1 << scheme.bits) - 1), low))
    # The sign bit is in the way of a conversion from 32 bits.
    chosen = T.Select(_in_place(index, scheme), whole, T.shift_right(word, low))
    return T.Cast("float32", T.Cast("int32", chosen))


def unit(index: Any, scheme: Scheme) -> Any:
    """The power of two, at most 1, that `number`'s values of this index are to be multiplied by."""
    exponent = T.uint32(127 - scheme.bits * index)
    return T.Select(
        _in_place(index, scheme), T.reinterpret("float32", T.shift_left(exponent, T.uint32(23))), T.float32(1)
    )


def _in_place(index: Any, scheme: Scheme) -> Any:
    return index < 31 // scheme.bits


def element(x: Any, row: Any, k: Any, scheme: Scheme, depth: int, before: int, after: int) -> Any:
    """x[row, k] in float32; 0 beyond the inputs, where the last group is not whole."""
    if depth % scheme.group_size == 0:
        return f32(x[at(before, after, row, k)])
    return T.Select(k < depth, f32(x[at(before, after, row, T.min(k, depth - 1))]), T.float32(0))


def group_scales(s: Any, column: Any, group: Any, count: int, lanes: int) -> Any:
    """The scales of so many groups of a column of the layout NK, each in as many of the lanes: float32 x lanes."""
    some = T.Cast(f"float32x{count}", s[column, T.ramp(group, 1, count)])
    if lanes == count:
        return some
    # A shuffle may have no more indices than its inputs have lanes.
    each = lanes // count
    return tirx.Shuffle([some] * each, [tirx.IntImm("int32", lane // each) for lane in range(lanes)])


@T.macro
def clear(sums, first, count):
    """sums[first : first + count, 8, LANES] = 0."""
    for b in T.serial(count):
        for i in T.unroll(8):
            for j in T.vectorized(LANES):
                sums[first + b, i, j] = T.float32(0)


@T.macro
def dequantize_panel(q, s, panel, some, scales, scheme, columns, block, depth):
    """panel[whole groups of depth, 16] = the weights of the 16 columns of block, transposed."""
    for g in T.serial(groups(scheme, depth)):
        for h in T.unroll(2):
            for j in T.vectorized(LANES):
                scales[h, j] = f32(s[place(scheme, block_start(block, TILE_COLUMNS, columns) + h * LANES + j, g)])
        for w in T.serial(scheme.words_per_group):
            for h in T.unroll(2):
                for j in T.vectorized(LANES):
                    some[h, j] = q[
                        place(
                            scheme,
                            block_start(block, TILE_COLUMNS, columns) + h * LANES + j,
                            g * scheme.words_per_group + w,
                        )
                    ]
            for i in T.unroll(scheme.elements_per_word):
                for h in T.unroll(2):
                    for j in T.vectorized(LANES):
                        panel[g * scheme.group_size + w * scheme.elements_per_word + i, h * LANES + j] = (
                            number(some[h, j], i, scheme) * unit(i, scheme) - T.float32(scheme.max_int)
                        ) * scales[h, j]


@T.macro
def multiply_rows(x, q, s, y, scheme, rows, columns, depth, out, before, after):
    """y = x times q, s, for many rows: a panel of K x 16 weights is dequantized once, then used by a register tile for all
    rows of x."""
    xs = T.alloc_buffer((rows, depth), "float32")
    copy_float32(x, xs, rows, depth, before, after)
    for block in T.parallel((columns + TILE_COLUMNS - 1) // TILE_COLUMNS):
        panel = T.alloc_buffer((groups(scheme, depth) * scheme.group_size, TILE_COLUMNS), "float32")
        some = T.alloc_buffer((2, LANES), "uint32", scope="global")
        scales = T.alloc_buffer((2, LANES), "float32", scope="global")
        tile = T.alloc_buffer((TILE_ROWS, 2, LANES), "float32", scope="global")
        dequantize_panel(q, s, panel, some, scales, scheme, columns, block, depth)
        multiply_panel(xs, panel, y, tile, rows, columns, block, depth, out, before, after)
