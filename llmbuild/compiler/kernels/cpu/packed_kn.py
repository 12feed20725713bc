"""A row times packed weights of the layout KN (see `packed_words`), where the words of neighbouring outputs are neighbours.

A lane is an output, and each element of x serves a block of them.  The zero point leaves the inner loop as in `packed_nk`.
"""

from __future__ import annotations

from tvm.script import tirx as T

from llmbuild.compiler.kernels.cpu.packed_words import blocks, clear, element, groups, number, unit, words
from llmbuild.compiler.kernels.cpu.tile import LANES, ask_for, at, block_start, f32

VECTORS = 8
COLUMNS = VECTORS * LANES
"""Outputs of a block, and the fewest that a product has."""
STRIP = 8
"""Blocks of a strip."""


@T.macro
def spread(x, row, xp, xz, scheme, depth, before, after):
    """xp = x[row, :] times the units of its numbers, xz[group] = -zero times a group's sum."""
    for g in T.serial(groups(scheme, depth)):
        xz[g] = T.float32(0)
        for w in T.serial(scheme.words_per_group):
            for i in T.unroll(scheme.elements_per_word):
                xp[(g * scheme.words_per_group + w) * scheme.elements_per_word + i] = element(
                    x,
                    row,
                    (g * scheme.words_per_group + w) * scheme.elements_per_word + i,
                    scheme,
                    depth,
                    before,
                    after,
                )
                xz[g] = (
                    xz[g]
                    - T.float32(scheme.max_int) * xp[(g * scheme.words_per_group + w) * scheme.elements_per_word + i]
                )
                xp[(g * scheme.words_per_group + w) * scheme.elements_per_word + i] = xp[
                    (g * scheme.words_per_group + w) * scheme.elements_per_word + i
                ] * unit(i, scheme)


@T.macro
def multiply_row(x, q, s, y, row, scheme, columns, depth, out, before, after):
    """y[row, :] = x[row, :] times q, s."""
    xp = T.alloc_buffer((words(scheme, depth) * scheme.elements_per_word,), "float32")
    xz = T.alloc_buffer((groups(scheme, depth),), "float32")
    spread(x, row, xp, xz, scheme, depth, before, after)
    for strip in T.parallel((columns + STRIP * COLUMNS - 1) // (STRIP * COLUMNS)):
        acc = T.alloc_buffer((STRIP, VECTORS, LANES), "float32")
        part = T.alloc_buffer((VECTORS, LANES), "float32", scope="global")
        clear(acc, 0, blocks(strip, STRIP, COLUMNS, columns))
        for g in T.serial(groups(scheme, depth)):
            for b in T.serial(blocks(strip, STRIP, COLUMNS, columns)):
                for h in T.unroll(VECTORS):
                    for j in T.vectorized(LANES):
                        part[h, j] = xz[g]
                for w in T.serial(scheme.words_per_group):
                    for h in T.unroll(VECTORS // 2):
                        T.evaluate(
                            ask_for(
                                q,
                                T.min((g + 1) * scheme.words_per_group + w, words(scheme, depth) - 1),
                                block_start(strip * STRIP + b, COLUMNS, columns) + h * 2 * LANES,
                            )
                        )
                    for i in T.unroll(scheme.elements_per_word):
                        for h in T.unroll(VECTORS):
                            for j in T.vectorized(LANES):
                                part[h, j] = part[h, j] + xp[
                                    (g * scheme.words_per_group + w) * scheme.elements_per_word + i
                                ] * number(
                                    q[
                                        g * scheme.words_per_group + w,
                                        block_start(strip * STRIP + b, COLUMNS, columns) + h * LANES + j,
                                    ],
                                    i,
                                    scheme,
                                )
                for h in T.unroll(VECTORS):
                    for j in T.vectorized(LANES):
                        acc[b, h, j] = acc[b, h, j] + part[h, j] * f32(
                            s[g, block_start(strip * STRIP + b, COLUMNS, columns) + h * LANES + j]
                        )
        for b in T.serial(blocks(strip, STRIP, COLUMNS, columns)):
            for h in T.unroll(VECTORS):
                for j in T.vectorized(LANES):
                    y[at(before, after, row, block_start(strip * STRIP + b, COLUMNS, columns) + h * LANES + j)] = (
                        T.Cast(out, acc[b, h, j])
                    )
