"""A row times packed weights of the layout NK (see `packed_words`), where an output's words follow each other.

A vector load of 8 words holds 64 weights of 4 bits or 80 of 3; number i of lane j is element 8 (or 10) j + i.  x is therefore
copied once into that order, after which all loads are contiguous.  The zero point leaves the inner loop:
sum (q - zero) x = sum q x - zero sum x, and the second sum is the same for every output.
"""

from __future__ import annotations

from typing import Any

from tvm.script import tirx as T

from llmbuild.compiler.kernels.cpu.packed_words import element, group_scales, number, unit, words
from llmbuild.compiler.kernels.cpu.tile import GEMV_ROWS, LANES, at, block_start, f32, lane_sum
from llmbuild.quantization.scheme import CPU_WORDS, Scheme

QUAD = CPU_WORDS
"""Words of the last step, where there are no eight left."""


def scales_of(s: Any, column: Any, word: Any, scheme: Scheme) -> Any:
    """The scales of eight words from a multiple of eight on: float32x8."""
    group = word // scheme.words_per_group
    if scheme.words_per_group % LANES == 0:
        return T.broadcast(f32(s[column, group]), LANES)
    return group_scales(s, column, group, 2, LANES)


def every() -> Any:
    """The indices of a vector's lanes."""
    return T.ramp(0, 1, LANES)


@T.macro
def arrange(x, row, xp, xz, scheme, word, lanes, depth, before, after):
    """Copy the elements of x[row, :] at `lanes` words into the order of the lanes, times the units of their numbers (xp), and
    gather -zero times the sum of each lane (xz)."""
    for j in T.vectorized(lanes):
        xz[word + j] = T.float32(0)
    for i in T.unroll(scheme.elements_per_word):
        for j in T.vectorized(lanes):
            xp[word * scheme.elements_per_word + i * lanes + j] = element(
                x, row, (word + j) * scheme.elements_per_word + i, scheme, depth, before, after
            )
        for j in T.vectorized(lanes):
            xz[word + j] = (
                xz[word + j] - T.float32(scheme.max_int) * xp[word * scheme.elements_per_word + i * lanes + j]
            )
        for j in T.vectorized(lanes):
            xp[word * scheme.elements_per_word + i * lanes + j] = xp[
                word * scheme.elements_per_word + i * lanes + j
            ] * unit(i, scheme)


@T.macro
def multiply_words(xp, xz, q, s, acc, part, scheme, word, lanes, columns, block):
    """acc[4 columns of block, :] += `lanes` words of each times an arranged row of x."""
    for r in T.unroll(GEMV_ROWS):
        for j in T.vectorized(lanes):
            part[r, j] = xz[word + j]
    for i in T.unroll(scheme.elements_per_word):
        for r in T.unroll(GEMV_ROWS):
            for j in T.vectorized(lanes):
                part[r, j] = part[r, j] + xp[word * scheme.elements_per_word + i * lanes + j] * number(
                    q[block_start(block, GEMV_ROWS, columns) + r, word + j], i, scheme
                )
    for r in T.unroll(GEMV_ROWS):
        if lanes == LANES:
            acc[r, every()] = acc[r, every()] + part[r, every()] * scales_of(
                s, block_start(block, GEMV_ROWS, columns) + r, word, scheme
            )
        else:
            for j in T.vectorized(lanes):
                acc[r, j] = acc[r, j] + part[r, j] * f32(
                    s[block_start(block, GEMV_ROWS, columns) + r, word // scheme.words_per_group]
                )


@T.macro
def multiply_row(x, q, s, y, row, scheme, columns, depth, out, before, after):
    """y[row, :] = x[row, :] times q, s."""
    xp = T.alloc_buffer((words(scheme, depth) * scheme.elements_per_word,), "float32")
    xz = T.alloc_buffer((words(scheme, depth) + LANES,), "float32")
    for p in T.serial(words(scheme, depth) // LANES):
        arrange(x, row, xp, xz, scheme, p * LANES, LANES, depth, before, after)
    if words(scheme, depth) % LANES != 0:
        arrange(x, row, xp, xz, scheme, words(scheme, depth) - QUAD, QUAD, depth, before, after)
    for block in T.parallel((columns + GEMV_ROWS - 1) // GEMV_ROWS):
        acc = T.alloc_buffer((GEMV_ROWS, LANES), "float32", scope="global")
        part = T.alloc_buffer((GEMV_ROWS, LANES), "float32", scope="global")
        for r in T.unroll(GEMV_ROWS):
            for j in T.vectorized(LANES):
                acc[r, j] = T.float32(0)
        for p in T.serial(words(scheme, depth) // LANES):
            multiply_words(xp, xz, q, s, acc, part, scheme, p * LANES, LANES, columns, block)
        if words(scheme, depth) % LANES != 0:
            multiply_words(xp, xz, q, s, acc, part, scheme, words(scheme, depth) - QUAD, QUAD, columns, block)
        for r in T.unroll(GEMV_ROWS):
            y[at(before, after, row, block_start(block, GEMV_ROWS, columns) + r)] = T.Cast(out, lane_sum(acc, r))
