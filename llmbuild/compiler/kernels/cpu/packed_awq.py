"""CPU kernels for AWQ's packed weights as they lie on disk (`llmbuild.quantization.awq`): a word has numbers of eight outputs.

Vector times matrix: a lane is a word, and each of eight vectors of sums is for the outputs that have their number at the same
place of their words.  A thread takes a part of the inputs and a strip of the outputs, and the sums of the parts are added.  The
zero points leave the loop: sum (q - zero) x = sum q x - zero sum x, by groups.  Matrix times matrix: as in `packed_words`, with
panels where a lane is an output.
"""

from __future__ import annotations

from typing import Any

from tvm.script import tirx as T

from llmbuild.compiler.kernels.cpu.packed_words import LIMIT, blocks, clear, number, unit
from llmbuild.compiler.kernels.cpu.tile import (
    LANES,
    TILE_COLUMNS,
    TILE_ROWS,
    ask_for,
    at,
    block_start,
    copy_float32,
    f32,
    multiply_panel,
    row_shape,
)
from llmbuild.quantization.awq import shift
from llmbuild.quantization.scheme import Scheme

NUMBERS = 8
COLUMNS = LANES * NUMBERS
"""Outputs of a block, and the fewest that a product has."""
STRIP = 64
"""Blocks of a strip, at most.  Wide strips visit few pages of memory a byte, which are many where rows are as long as a page."""
PARTS = 8
"""Parts of the inputs, which are summed up by themselves so that threads have enough to do where there are few strips."""
RUN = 4
"""Inputs for which a strip is read, block after block."""


def output(index: Any, lane: Any) -> Any:
    """The output, counted from the first of a vector of words, whose number is at place `index` of word `lane`."""
    return lane * NUMBERS + index % 4 * 2 + index // 4


def first_word(strip: Any, block: Any, columns: Any) -> Any:
    """The first word of a block of a strip."""
    return block_start(strip * STRIP + block, COLUMNS, columns) // NUMBERS


def first_group(part: Any, scheme: Scheme, depth: int) -> Any:
    """The first group of a part of the inputs."""
    return part * (depth // scheme.group_size) // PARTS


def one_of(word: Any, lane: Any) -> Any:
    """The number of output `lane` of a word, as float32."""
    bits = T.bitwise_and(T.shift_right(word, T.Cast("uint32", shift(lane))), T.uint32(15))
    return T.Cast("float32", T.Cast("int32", bits))


@T.macro
def multiply_row(x, q, z, s, y, row, scheme, columns, depth, out, before, after):
    """y[row, :] = x[row, :] times q, z, s."""
    xs = T.alloc_buffer((depth,), "float32")
    xz = T.alloc_buffer((depth // scheme.group_size,), "float32")
    for g in T.serial(depth // scheme.group_size):
        xz[g] = T.float32(0)
        for k in T.serial(scheme.group_size):
            xs[g * scheme.group_size + k] = f32(x[at(before, after, row, g * scheme.group_size + k)])
            xz[g] = xz[g] + xs[g * scheme.group_size + k]
    count: T.let[T.int64] = (columns + COLUMNS - 1) // COLUMNS
    sums = T.alloc_buffer((PARTS * count, NUMBERS, LANES), "float32")
    for task in T.parallel((count + STRIP - 1) // STRIP * PARTS):
        part = T.alloc_buffer((STRIP, NUMBERS, LANES), "float32")
        some = T.alloc_buffer((NUMBERS, LANES), "float32", scope="global")
        strip: T.let[T.int64] = task // PARTS
        p: T.let[T.int64] = task % PARTS
        to: T.let[T.int64] = p * count + strip * STRIP
        clear(sums, to, blocks(strip, STRIP, COLUMNS, columns))
        for h in T.serial(first_group(p + 1, scheme, depth) - first_group(p, scheme, depth)):
            group: T.let[T.int64] = first_group(p, scheme, depth) + h
            for b in T.serial(blocks(strip, STRIP, COLUMNS, columns)):
                for i in T.unroll(NUMBERS):
                    for j in T.vectorized(LANES):
                        part[b, i, j] = -xz[group] * number(z[group, first_word(strip, b, columns) + j], i, scheme)
            for r in T.serial(scheme.group_size // RUN):
                for b in T.serial(blocks(strip, STRIP, COLUMNS, columns)):
                    for i in T.unroll(NUMBERS):
                        for j in T.vectorized(LANES):
                            some[i, j] = part[b, i, j]
                    for k in T.serial(RUN):
                        T.evaluate(
                            ask_for(
                                q,
                                T.min(group * scheme.group_size + (r + 1) * RUN + k, depth - 1),
                                first_word(strip, b, columns),
                            )
                        )
                        for i in T.unroll(NUMBERS):
                            for j in T.vectorized(LANES):
                                some[i, j] = some[i, j] + xs[group * scheme.group_size + r * RUN + k] * number(
                                    q[group * scheme.group_size + r * RUN + k, first_word(strip, b, columns) + j],
                                    i,
                                    scheme,
                                )
                    for i in T.unroll(NUMBERS):
                        for j in T.vectorized(LANES):
                            part[b, i, j] = some[i, j]
            for b in T.serial(blocks(strip, STRIP, COLUMNS, columns)):
                for i in T.unroll(NUMBERS):
                    for j in T.vectorized(LANES):
                        sums[to + b, i, j] = sums[to + b, i, j] + part[b, i, j] * unit(i, scheme) * f32(
                            s[group, first_word(strip, b, columns) * NUMBERS + output(i, j)]
                        )
    for b in T.serial(count):
        for i in T.unroll(NUMBERS):
            for other in T.unroll(PARTS - 1):
                for j in T.vectorized(LANES):
                    sums[b, i, j] = sums[b, i, j] + sums[(other + 1) * count + b, i, j]
            for j in T.unroll(LANES):
                y[at(before, after, row, first_word(0, b, columns) * NUMBERS + output(i, j))] = T.Cast(
                    out, sums[b, i, j]
                )


@T.macro
def dequantize_panel(q, z, s, panel, zeros, scales, scheme, columns, block, depth):
    """panel[depth, 16] = the weights of the 16 columns of block, transposed."""
    for g in T.serial(depth // scheme.group_size):
        for h in T.unroll(2):
            for j in T.vectorized(LANES):
                zeros[h, j] = one_of(z[g, block_start(block, TILE_COLUMNS, columns) // NUMBERS + h], j)
            for j in T.vectorized(LANES):
                scales[h, j] = f32(s[g, block_start(block, TILE_COLUMNS, columns) + h * LANES + j])
        for k in T.serial(scheme.group_size):
            for h in T.unroll(2):
                for j in T.vectorized(LANES):
                    panel[g * scheme.group_size + k, h * LANES + j] = (
                        one_of(
                            q[g * scheme.group_size + k, block_start(block, TILE_COLUMNS, columns) // NUMBERS + h], j
                        )
                        - zeros[h, j]
                    ) * scales[h, j]


@T.macro
def multiply_rows(x, q, z, s, y, scheme, rows, columns, depth, out, before, after):
    """y = x times q, z, s, for many rows."""
    xs = T.alloc_buffer((rows, depth), "float32")
    copy_float32(x, xs, rows, depth, before, after)
    for block in T.parallel((columns + TILE_COLUMNS - 1) // TILE_COLUMNS):
        panel = T.alloc_buffer((depth, TILE_COLUMNS), "float32")
        zeros = T.alloc_buffer((2, LANES), "float32", scope="global")
        scales = T.alloc_buffer((2, LANES), "float32", scope="global")
        tile = T.alloc_buffer((TILE_ROWS, 2, LANES), "float32", scope="global")
        dequantize_panel(q, z, s, panel, zeros, scales, scheme, columns, block, depth)
        multiply_panel(xs, panel, y, tile, rows, columns, block, depth, out, before, after)


def serves(scheme: Scheme, outputs: int, depth: int) -> bool:
    """Whether the kernels take a layer."""
    whole = outputs % NUMBERS == 0 and depth % scheme.group_size == 0
    return scheme.comes_packed and whole and outputs >= COLUMNS


def vector_kernel(scheme: Scheme, depth: int, before: int, dtype: str, scale_dtype: str, out: str) -> Any:
    """x [1 x before, 1, depth] times q, z, s -> y [1 x before, 1, N]: the decode kernel."""

    @T.prim_func(private=True, s_tir=True)
    def awq_vector(
        x_handle: T.handle, q_handle: T.handle, z_handle: T.handle, s_handle: T.handle, y_handle: T.handle
    ) -> None:
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
        columns = T.int64()
        x = T.match_buffer(x_handle, row_shape(before, 1, 0, depth), dtype)
        q = T.match_buffer(q_handle, (depth, columns // NUMBERS), "uint32")
        z = T.match_buffer(z_handle, (depth // scheme.group_size, columns // NUMBERS), "uint32")
        s = T.match_buffer(s_handle, (depth // scheme.group_size, columns), scale_dtype)
        y = T.match_buffer(y_handle, row_shape(before, 1, 0, columns), out)
        multiply_row(x, q, z, s, y, 0, scheme, columns, depth, out, before, 0)

    return awq_vector


def matrix_kernel(scheme: Scheme, depth: int, before: int, after: int, dtype: str, scale_dtype: str, out: str) -> Any:
    """x [1 x before, rows, 1 x after, depth] times q, z, s -> y [1 x before, rows, 1 x after, N], for any number of rows."""

    @T.prim_func(private=True, s_tir=True)
    def awq_matrix(
        x_handle: T.handle, q_handle: T.handle, z_handle: T.handle, s_handle: T.handle, y_handle: T.handle
    ) -> None:
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
        rows = T.int64()
        columns = T.int64()
        x = T.match_buffer(x_handle, row_shape(before, rows, after, depth), dtype)
        q = T.match_buffer(q_handle, (depth, columns // NUMBERS), "uint32")
        z = T.match_buffer(z_handle, (depth // scheme.group_size, columns // NUMBERS), "uint32")
        s = T.match_buffer(s_handle, (depth // scheme.group_size, columns), scale_dtype)
        y = T.match_buffer(y_handle, row_shape(before, rows, after, columns), out)
        if rows <= LIMIT:
            for row in T.serial(rows):
                multiply_row(x, q, z, s, y, row, scheme, columns, depth, out, before, after)
        else:
            multiply_rows(x, q, z, s, y, scheme, rows, columns, depth, out, before, after)

    return awq_matrix
