"""A row times packed weights of the layout NK (see `packed_words`), by products of pairs of 16 bits (see `instructions`).

Half of a word's numbers are in each half of the word: of 4 and 8 bits they are, of 3 bits the upper five are moved by one bit.
Then a shift and an AND give two numbers, one for each half.  x is rounded as for products of bytes (`rounding`); its two planes
make one number of 15 bits.  The zero point leaves the loop: sum (q - zero) x = sum q x - zero sum x.

Where a row's words are no multiple of eight, the last vector of them begins four words earlier and meets zeros there.
"""

from __future__ import annotations

from typing import Any

from tvm.script import tirx as T

from llmbuild.compiler.kernels.cpu.instructions.instructions import Instructions
from llmbuild.compiler.kernels.cpu.packed_nk import scales_of
from llmbuild.compiler.kernels.cpu.packed_words import Product, multiply_rows, words
from llmbuild.compiler.kernels.cpu.rounding import PARTS, Rounding, lanes, round_words, total, wide
from llmbuild.compiler.kernels.cpu.tile import LANES, at, lane_sum
from llmbuild.quantization.scheme import Scheme

CHAINS = 2
"""Vectors that add up independently of each other."""
GEMV_LIMIT = 6
"""Up to this many rows, one matrix-vector product a row is faster than dequantizing panels."""


def pairs_of(scheme: Scheme) -> int:
    """The pairs of a word."""
    return scheme.elements_per_word // 2


def halves(word: Any, scheme: Scheme) -> Any:
    """A vector of words whose halves begin with a number each."""
    bits = scheme.bits * pairs_of(scheme)
    if bits == 16:
        return word
    every, upper = (1 << 2 * bits) - 1, (1 << 2 * bits) - (1 << bits)
    # Adding the upper numbers to themselves moves them by a bit, into those of a word that belong to no number.
    return T.bitwise_and(word, wide(T.uint32(every))) + T.bitwise_and(word, wide(T.uint32(upper)))


def pair(parted: Any, index: int, scheme: Scheme) -> Any:
    """Pair `index` of a vector of `halves`."""
    mask = (1 << scheme.bits) - 1
    return T.bitwise_and(T.shift_right(parted, wide(T.uint32(scheme.bits * index))), wide(T.uint32(mask << 16 | mask)))


def _paired(values: Any, index: Any, scheme: Scheme) -> Any:
    """The numbers of pair `index` as the halves of words."""
    lower = T.bitwise_and(values[index, lanes(0)], wide(T.int32(0xFFFF)))
    return T.bitwise_or(lower, T.shift_left(values[index + pairs_of(scheme), lanes(0)], wide(T.int32(16))))


@T.macro
def round_pairs(x, row, first, word, pairs, zero, scales, step, count, scheme, depth, before, after):
    """The elements of x[row, :] at the eight words from `word` on, of which those before the word `first` are zero, as pairs,
    with -zero times the sum of the elements of each word, and its scale."""
    high = T.alloc_buffer((scheme.elements_per_word, LANES), "int32", scope="global")
    low = T.alloc_buffer((scheme.elements_per_word, LANES), "int32", scope="global")
    round_words(x, row, first, word, high, low, scales, (step,), count, scheme, depth, before, after)
    if count == 2:
        for i in T.unroll(scheme.elements_per_word):
            high[i, lanes(0)] = high[i, lanes(0)] * wide(T.int32(PARTS)) + low[i, lanes(0)]
    for i in T.unroll(pairs_of(scheme)):
        pairs[step * pairs_of(scheme) + i, lanes(0)] = _paired(high, i, scheme)
    zero[step, lanes(0)] = total(high, scheme.elements_per_word) * wide(T.int32(-scheme.max_int))


def steps(scheme: Scheme, depth: int) -> int:
    """Vectors of eight words that a row has, the last of which may overlap with the one before."""
    return -(-words(scheme, depth) // LANES)


def start(scheme: Scheme, step: Any, depth: int) -> Any:
    """The first word of a vector."""
    return T.min(step * LANES, words(scheme, depth) - LANES)


def sums(word: Any, pairs: Any, step: Any, scheme: Scheme, by: Instructions) -> Any:
    """The sums of the products of words with a rounded row, without the scales: int32x8, in whose lanes a group's sum may be
    anyhow."""
    parted = halves(word, scheme)
    return by.add_halves(
        None,
        [
            (pair(parted, index, scheme), pairs[step * pairs_of(scheme) + index, lanes(0)])
            for index in range(pairs_of(scheme))
        ],
    )


@T.macro
def add_words(q, s, pairs, zero, scales, acc, column, chain, step, scheme, by, depth):
    """acc[chain, :] += a vector of words of a column times the rounded row."""
    acc[chain, lanes(0)] = acc[chain, lanes(0)] + T.Cast(
        "float32x8", sums(q[column, lanes(start(scheme, step, depth))], pairs, step, scheme, by) + zero[step, lanes(0)]
    ) * (scales_of(s, column, start(scheme, step, depth), scheme) * scales[step, lanes(0)])


@T.macro
def multiply_row(x, q, s, y, row, scheme, columns, rounding, depth, out, before, after):
    """y[row, :] = x[row, :] times q, s."""
    pairs = T.alloc_buffer((steps(scheme, depth) * pairs_of(scheme), LANES), "int32")
    zero = T.alloc_buffer((steps(scheme, depth), LANES), "int32")
    scales = T.alloc_buffer((steps(scheme, depth), LANES), "float32")
    for p in T.serial(steps(scheme, depth)):
        round_pairs(
            x,
            row,
            p * LANES,
            start(scheme, p, depth),
            pairs,
            zero,
            scales,
            p,
            rounding.planes,
            scheme,
            depth,
            before,
            after,
        )
    for column in T.parallel(columns):
        acc = T.alloc_buffer((CHAINS, LANES), "float32", scope="global")
        for c in T.unroll(CHAINS):
            acc[c, lanes(0)] = wide(T.float32(0))
        for p in T.serial(steps(scheme, depth) // CHAINS):
            for c in T.unroll(CHAINS):
                add_words(q, s, pairs, zero, scales, acc, column, c, p * CHAINS + c, scheme, rounding.by, depth)
        if steps(scheme, depth) % CHAINS != 0:
            add_words(q, s, pairs, zero, scales, acc, column, 0, steps(scheme, depth) - 1, scheme, rounding.by, depth)
        y[at(before, after, row, column)] = T.Cast(out, lane_sum(acc, 0) + lane_sum(acc, 1))


def product(rounding: Rounding) -> Product:
    """Rounded rows times packed weights."""

    @T.macro
    def one(x, q, s, y, row, scheme, columns, depth, out, before, after):
        multiply_row(x, q, s, y, row, scheme, columns, rounding, depth, out, before, after)

    return Product(one, multiply_rows, GEMV_LIMIT)
