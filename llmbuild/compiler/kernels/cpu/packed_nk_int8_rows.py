"""Many rows times weights of 4 bits by products of bytes (see `packed_nk_int8`): a panel of 16 columns is unpacked once, then
used by a register tile for all rows.

The eight elements of a word are two words of bytes, in a panel as in the rows of a tile.  Where instructions take one of them
(see `side`) all even ones lie before the odd ones; where they take both, each odd one is beside its even one.
"""

from __future__ import annotations

from typing import Any

from tvm import tirx
from tvm.script import tirx as T

from llmbuild.compiler.kernels.cpu.instructions.instructions import Instructions
from llmbuild.compiler.kernels.cpu.packed_bytes import GROUP, STEP, ZERO, bytes_of, every
from llmbuild.compiler.kernels.cpu.rounding import PARTS, lanes, round_words, total, wide
from llmbuild.compiler.kernels.cpu.tile import (
    LANES,
    TILE_COLUMNS,
    block_start,
    clamped_row,
    f32,
    store_tile,
    transpose,
)


def whole(by: Instructions, number: int) -> Any:
    """Unfinished sums that are this number each."""
    dtype, count = by.unfinished
    return T.broadcast(tirx.IntImm(dtype, number), count)


def vectors(by: Instructions) -> int:
    """The vectors that a row of a tile has in one pass."""
    return TILE_COLUMNS // by.tile_words // by.passes


def across(by: Instructions, value: Any) -> Any:
    """A vector of a tile of one value."""
    return T.broadcast(value, by.tile_words)


def outputs(by: Instructions, vector: Any) -> Any:
    """The indices of the outputs of a vector of a tile."""
    return T.ramp(vector * by.tile_words, 1, by.tile_words)


def tiles(by: Instructions, rows: Any) -> Any:
    """The tiles that some rows have; the last may have rows of the one before, or a row several times (see `clamped_row`)."""
    return (rows + by.tile_rows - 1) // by.tile_rows


def portions(by: Instructions) -> int:
    """The portions in which instructions take a word's eight elements."""
    return 2 // by.side


def beside(even: Any, odd: Any) -> Any:
    """The lanes of two vectors in turn."""
    return tirx.Shuffle(
        [even, odd], [tirx.IntImm("int32", place + LANES * part) for place in range(LANES) for part in (0, 1)]
    )


def across_of_row(by: Instructions, values: Any, place: tuple[Any, ...], row: Any) -> Any:
    """A vector of values[place, row]: of a lane of those of all rows, since instructions of ARM take one as it is, while it would
    be loaded alone; others load it alone whatever is written."""
    return across(by, tirx.Shuffle([values[(*place, every(by.tile_rows))]], [row]))


def words_of_rows(by: Instructions, planes: Any, place: tuple[Any, ...], m: Any) -> Any:
    """What an instruction takes of the rows from m * `side` on at a place of a tile's planes."""
    if by.side == 1:
        return across_of_row(by, planes, place, m)
    return planes[(*place, T.ramp(m * by.side**2, 1, by.side**2))]


def finished_row(by: Instructions, sums: Any, row: Any) -> Any:
    """The finished sums of one of `side` rows."""
    found = by.finished(sums)
    if by.side == 1:
        return found
    return tirx.Shuffle([found], [row * by.tile_words + output for output in range(by.tile_words)])


@T.macro
def unpack_words(panel, word, half, words, by):
    """panel[word, portion, 8 x `side` from those of the half of columns on] = the bytes of words[8]."""
    if by.side == 1:
        panel[word, 0, lanes(half * LANES)] = by.unpacked(words, LANES)[0]
        panel[word, 1, lanes(half * LANES)] = by.unpacked(words, LANES)[1]
    else:
        panel[word, 0, T.ramp(half * 2 * LANES, 1, 2 * LANES)] = beside(*by.unpacked(words, LANES))


@T.macro
def unpack_panel(q, s, panel, factors, columns, block, by, depth):
    """panel[words, portions, 16 x `side`] = the bytes of the 16 columns of block; factors are their scales."""
    some = T.alloc_buffer((LANES, LANES), "uint32", scope="global")
    words = T.alloc_buffer((LANES, LANES), "uint32", scope="global")
    for p in T.serial(depth // STEP):
        for h in T.unroll(2):
            for j in T.unroll(LANES):
                some[j, lanes(0)] = q[block_start(block, TILE_COLUMNS, columns) + h * LANES + j, lanes(p * LANES)]
            transpose(some, words)
            for j in T.unroll(LANES):
                unpack_words(panel, p * LANES + j, h, words[j, lanes(0)], by)
    if depth // GROUP >= LANES:
        scales = T.alloc_buffer((LANES, LANES), "float32", scope="global")
        other = T.alloc_buffer((LANES, LANES), "float32", scope="global")
        for p in T.serial((depth // GROUP + LANES - 1) // LANES):
            for h in T.unroll(2):
                for j in T.unroll(LANES):
                    scales[j, lanes(0)] = T.Cast(
                        "float32x8",
                        s[
                            block_start(block, TILE_COLUMNS, columns) + h * LANES + j,
                            lanes(block_start(p, LANES, depth // GROUP)),
                        ],
                    )
                transpose(scales, other)
                for j in T.unroll(LANES):
                    factors[block_start(p, LANES, depth // GROUP) + j, lanes(h * LANES)] = other[j, lanes(0)]
    else:
        for g in T.serial(depth // GROUP):
            for j in T.vectorized(TILE_COLUMNS):
                factors[g, j] = f32(s[block_start(block, TILE_COLUMNS, columns) + j, g])


@T.macro
def round_tile_row(x, planes, zero, scales, tile, place, scheme, rows, by, count, depth, before, after):
    """Row `place` of a tile in `count` planes, as `round_row` has them: planes[tile, word, plane and portion, rows x `side`] are
    words, zero and scales[tile, group, place] those of groups.  The rows of a tile lie beside each other, so that it reads one
    stream."""
    high = T.alloc_buffer((8, LANES), "int32", scope="global")
    low = T.alloc_buffer((8, LANES), "int32", scope="global")
    found = T.alloc_buffer((1, LANES), "float32", scope="global")
    sums = T.alloc_buffer((LANES,), "int32", scope="global")
    words = T.alloc_buffer((4, LANES), "int32", scope="global")
    for p in T.serial(depth // STEP):
        round_words(
            x,
            clamped_row(tile, place, rows, by.tile_rows),
            0,
            p * LANES,
            high,
            low,
            found,
            (0,),
            count,
            scheme,
            depth,
            before,
            after,
        )
        for odd in T.unroll(2):
            words[odd, lanes(0)] = bytes_of(high, odd)
        if count == 1:
            sums[lanes(0)] = total(high, 8)
        else:
            for odd in T.unroll(2):
                words[2 + odd, lanes(0)] = bytes_of(low, odd)
            sums[lanes(0)] = total(high, 8) * wide(T.int32(PARTS)) + total(low, 8)
        for j in T.unroll(LANES):
            for part in T.unroll(2 * count):
                planes[tile, p * LANES + j, part // by.side, place * by.side + part % by.side] = words[part, j]
        for h in T.unroll(2):
            zero[tile, p * 2 + h, place] = (sums[4 * h] + sums[4 * h + 1] + sums[4 * h + 2] + sums[4 * h + 3]) * -ZERO
            scales[tile, p * 2 + h, place] = found[0, 4 * h]


@T.macro
def add_plane(panel, planes, sums, tile, group, first, plane, by):
    """sums[rows of a tile, some vectors, :] += a group of the panel times that of the tile's rows in one plane."""
    for w in T.serial(4):
        for portion in T.unroll(portions(by)):
            for m in T.unroll(by.tile_rows // by.side):
                for h in T.unroll(vectors(by)):
                    sums[m, h, every(by.unfinished[1])] = by.add_unfinished(
                        sums[m, h, every(by.unfinished[1])],
                        panel[
                            group * 4 + w,
                            portion,
                            T.ramp((first + h) * by.tile_words * by.side, 1, by.tile_words * by.side),
                        ],
                        words_of_rows(by, planes, (tile, group * 4 + w, plane * portions(by) + portion), m),
                    )


@T.macro
def multiply_group(panel, factors, planes, zero, scales, acc, sums, tile, group, first, by, count):
    """acc[rows of a tile, some vectors, :] += a group of the panel times that of the tile's rows, from the vector `first` of
    outputs on."""
    for m in T.unroll(by.tile_rows // by.side):
        for h in T.unroll(vectors(by)):
            sums[m, h, every(by.unfinished[1])] = whole(by, 0)
    add_plane(panel, planes, sums, tile, group, first, 0, by)
    if count == 2:
        for m in T.unroll(by.tile_rows // by.side):
            for h in T.unroll(vectors(by)):
                sums[m, h, every(by.unfinished[1])] = T.shift_left(sums[m, h, every(by.unfinished[1])], whole(by, 7))
        add_plane(panel, planes, sums, tile, group, first, 1, by)
    for m in T.unroll(by.tile_rows):
        for h in T.unroll(vectors(by)):
            acc[m, first + h, outputs(by, 0)] = acc[m, first + h, outputs(by, 0)] + T.Cast(
                f"float32x{by.tile_words}",
                finished_row(by, sums[m // by.side, h, every(by.unfinished[1])], m % by.side)
                + across_of_row(by, zero, (tile, group), m),
            ) * (factors[group, outputs(by, first + h)] * across_of_row(by, scales, (tile, group), m))


@T.macro
def multiply_rounded(x, q, s, y, scheme, rows, columns, by, count, depth, out, before, after):
    """y = x times q, s, for many rows."""
    planes = T.alloc_buffer((tiles(by, rows), depth // 8, count * portions(by), by.tile_rows * by.side), "int32")
    zero = T.alloc_buffer((tiles(by, rows), depth // GROUP, by.tile_rows), "int32")
    scales = T.alloc_buffer((tiles(by, rows), depth // GROUP, by.tile_rows), "float32")
    for row in T.parallel(tiles(by, rows) * by.tile_rows):
        round_tile_row(
            x,
            planes,
            zero,
            scales,
            row // by.tile_rows,
            row % by.tile_rows,
            scheme,
            rows,
            by,
            count,
            depth,
            before,
            after,
        )
    for block in T.parallel((columns + TILE_COLUMNS - 1) // TILE_COLUMNS):
        panel = T.alloc_buffer((depth // 8, portions(by), TILE_COLUMNS * by.side), "uint32")
        factors = T.alloc_buffer((depth // GROUP, TILE_COLUMNS), "float32")
        acc = T.alloc_buffer((by.tile_rows, TILE_COLUMNS // by.tile_words, by.tile_words), "float32", scope="global")
        sums = T.alloc_buffer(
            (by.tile_rows // by.side, vectors(by), by.unfinished[1]), by.unfinished[0], scope="global"
        )
        unpack_panel(q, s, panel, factors, columns, block, by, depth)
        for tile in T.serial(tiles(by, rows)):
            for m in T.unroll(by.tile_rows):
                for h in T.unroll(TILE_COLUMNS // by.tile_words):
                    acc[m, h, outputs(by, 0)] = across(by, T.float32(0))
            for first in T.unroll(by.passes):
                for g in T.serial(depth // GROUP):
                    multiply_group(panel, factors, planes, zero, scales, acc, sums, tile, g, first, by, count)
            store_tile(acc, y, tile, rows, columns, block, by.tile_rows, by.tile_words, out, before, after)
