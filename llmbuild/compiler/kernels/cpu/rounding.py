"""The input of a product as bytes, in the order in which words of eight 4-bit weights give theirs.

A group of 32 elements shares a scale s, and an element is s (h + l / 128) with bytes h and l, 15 bits in two planes, or s h in
one plane.  Relative to its group's largest element an error is below 1 / 32,000, or 1 / 250.  What is no number, or infinite,
makes the scale no number, or infinite, so that it does not get lost.
"""

from __future__ import annotations

from typing import Any

from tvm.script import tirx as T

from llmbuild.compiler.kernels.cpu.tile import LANES, at, f32

STEP = 8 * LANES
"""Elements of one vector of words: two groups.  The depth of a product must be a multiple of it."""
LEVELS = 127
"""The largest value of h."""
PARTS = 128
"""The values of l that make one of h."""
LEAST = 1e-35
"""Groups without a larger element are zero: the reciprocal of their scale would overflow."""


def lanes(start: Any) -> Any:
    """The indices of a vector."""
    return T.ramp(start, 1, LANES)


def wide(value: Any) -> Any:
    """A vector of one value."""
    return T.broadcast(value, LANES)


def _magnitude(value: Any) -> Any:
    """The size of a vector of float32 as an integer of the same order; what is no number is the largest."""
    return T.bitwise_and(T.reinterpret("int32x8", value), wide(T.int32(0x7FFFFFFF)))


def _bytes_of(values: Any, first: int) -> Any:
    """Every second row of small signed numbers [8, LANES], from `first` on, as the bytes of words."""
    word = None
    for index in range(4):
        low = T.bitwise_and(values[first + 2 * index, lanes(0)], wide(T.int32(255)))
        part = T.shift_left(low, wide(T.int32(8 * index)))
        word = part if word is None else T.bitwise_or(word, part)
    return word


def _sum_of(values: Any) -> Any:
    """The sum of the rows of numbers [8, LANES]."""
    total = values[0, lanes(0)]
    for index in range(1, 8):
        total = total + values[index, lanes(0)]
    return total


@T.macro
def round_row(x, row, planes, sums, scales, place, count, depth, before, after):
    """x[row, :] in `count` planes: planes[place, :, :] are the words of the even and the odd elements of h, and those of l;
    sums[place, :] the sum of the elements of each word, scales[place, :] the scale of each."""
    part = T.alloc_buffer((8, LANES), "float32", scope="global")
    high = T.alloc_buffer((8, LANES), "int32", scope="global")
    low = T.alloc_buffer((8, LANES), "int32", scope="global")
    most = T.alloc_buffer((LANES,), "int32", scope="global")
    inverse = T.alloc_buffer((LANES,), "float32", scope="global")
    for p in T.serial(depth // STEP):
        for i in T.unroll(8):
            for j in T.vectorized(LANES):
                part[i, j] = f32(x[at(before, after, row, p * STEP + j * 8 + i)])
        most[lanes(0)] = _magnitude(part[0, lanes(0)])
        for i in T.unroll(7):
            most[lanes(0)] = T.max(most[lanes(0)], _magnitude(part[i + 1, lanes(0)]))
        for g in T.unroll(2):
            most[g * 4] = T.max(T.max(most[g * 4], most[g * 4 + 1]), T.max(most[g * 4 + 2], most[g * 4 + 3]))
            for j in T.vectorized(4):
                scales[place, p * LANES + g * 4 + j] = T.reinterpret("float32", most[g * 4]) * T.float32(
                    1 / (LEVELS * (PARTS if count == 2 else 1))
                )
                inverse[g * 4 + j] = T.Select(
                    T.reinterpret("float32", most[g * 4]) > T.float32(LEAST),
                    T.float32(LEVELS) / T.reinterpret("float32", most[g * 4]),
                    T.float32(0),
                )
        for i in T.unroll(8):
            part[i, lanes(0)] = part[i, lanes(0)] * inverse[lanes(0)]
            high[i, lanes(0)] = T.Cast("int32x8", T.nearbyint(part[i, lanes(0)]))
            if count == 2:
                part[i, lanes(0)] = part[i, lanes(0)] - T.Cast("float32x8", high[i, lanes(0)])
                low[i, lanes(0)] = T.Cast("int32x8", T.nearbyint(part[i, lanes(0)] * wide(T.float32(PARTS))))
        planes[place, 0, lanes(p * LANES)] = _bytes_of(high, 0)
        planes[place, 1, lanes(p * LANES)] = _bytes_of(high, 1)
        if count == 1:
            sums[place, lanes(p * LANES)] = _sum_of(high)
        else:
            planes[place, 2, lanes(p * LANES)] = _bytes_of(low, 0)
            planes[place, 3, lanes(p * LANES)] = _bytes_of(low, 1)
            sums[place, lanes(p * LANES)] = _sum_of(high) * wide(T.int32(PARTS)) + _sum_of(low)
