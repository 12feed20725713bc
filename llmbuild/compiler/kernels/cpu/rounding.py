"""The input of a product in small whole numbers, in the order in which the words of packed weights give theirs.

The elements of four words share a scale s, and an element is s (h + l / 128) with bytes h and l, 15 bits in two planes, or s h in
one plane.  Relative to its group's largest element an error is below 1 / 32,000, or 1 / 250.  What is no number, or infinite,
makes the scale no number, or infinite, so that it does not get lost.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tvm.script import tirx as T

from llmbuild.compiler.kernels.cpu.instructions.instructions import Instructions
from llmbuild.compiler.kernels.cpu.packed_words import element, words
from llmbuild.compiler.kernels.cpu.tile import LANES

LEVELS = 127
"""The largest value of h."""
PARTS = 128
"""The values of l that make one of h."""
LEAST = 1e-35
"""Groups without a larger element are zero: the reciprocal of their scale would overflow."""


@dataclass(frozen=True, slots=True)
class Rounding:
    """How the rows of a product are rounded, and how they are multiplied then."""

    planes: int
    by: Instructions


def lanes(start: Any) -> Any:
    """The indices of a vector."""
    return T.ramp(start, 1, LANES)


def wide(value: Any) -> Any:
    """A vector of one value."""
    return T.broadcast(value, LANES)


def _magnitude(value: Any) -> Any:
    """The size of a vector of float32 as an integer of the same order; what is no number is the largest."""
    return T.bitwise_and(T.reinterpret("int32x8", value), wide(T.int32(0x7FFFFFFF)))


def total(values: Any, count: int) -> Any:
    """The sum of rows of numbers [count, LANES]."""
    found = values[0, lanes(0)]
    for index in range(1, count):
        found = found + values[index, lanes(0)]
    return found


def within(where: tuple[Any, ...], lane: Any) -> tuple[Any, ...]:
    """The indices of a lane of a vector in a buffer of vectors."""
    return (*where, lane)


@T.macro
def round_words(x, row, first, word, high, low, scales, where, count, scheme, depth, before, after):
    """The elements of x[row, :] at the eight words from `word` on, in `count` planes: high[i, j] and low[i, j] are h and l of
    number i of word + j, and scales[where, j] is their scale.  What is before the word `first` is zero."""
    part = T.alloc_buffer((scheme.elements_per_word, LANES), "float32", scope="global")
    most = T.alloc_buffer((LANES,), "int32", scope="global")
    inverse = T.alloc_buffer((LANES,), "float32", scope="global")
    for i in T.unroll(scheme.elements_per_word):
        for j in T.vectorized(LANES):
            part[i, j] = element(x, row, (word + j) * scheme.elements_per_word + i, scheme, depth, before, after)
        if words(scheme, depth) % LANES != 0:
            for j in T.vectorized(LANES):
                part[i, j] = T.Select(word + j < first, T.float32(0), part[i, j])
    most[lanes(0)] = _magnitude(part[0, lanes(0)])
    for i in T.unroll(scheme.elements_per_word - 1):
        most[lanes(0)] = T.max(most[lanes(0)], _magnitude(part[i + 1, lanes(0)]))
    for g in T.unroll(2):
        most[g * 4] = T.max(T.max(most[g * 4], most[g * 4 + 1]), T.max(most[g * 4 + 2], most[g * 4 + 3]))
        for j in T.vectorized(4):
            scales[within(where, g * 4 + j)] = T.reinterpret("float32", most[g * 4]) * T.float32(
                1 / (LEVELS * (PARTS if count == 2 else 1))
            )
            inverse[g * 4 + j] = T.Select(
                T.reinterpret("float32", most[g * 4]) > T.float32(LEAST),
                T.float32(LEVELS) / T.reinterpret("float32", most[g * 4]),
                T.float32(0),
            )
    for i in T.unroll(scheme.elements_per_word):
        part[i, lanes(0)] = part[i, lanes(0)] * inverse[lanes(0)]
        high[i, lanes(0)] = T.Cast("int32x8", T.nearbyint(part[i, lanes(0)]))
        if count == 2:
            part[i, lanes(0)] = part[i, lanes(0)] - T.Cast("float32x8", high[i, lanes(0)])
            low[i, lanes(0)] = T.Cast("int32x8", T.nearbyint(part[i, lanes(0)] * wide(T.float32(PARTS))))
