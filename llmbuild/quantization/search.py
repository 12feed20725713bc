"""The method "search": levels and scales of little squared error, with all levels of the packing and scales of either sign.

A number of b bits stands for a level from -z to z + 1, z = 2^(b-1) - 1, times its group's scale.  The method "round" leaves the
last level alone.  Here some scales are tried for each group (`TRIES`): with t the levels nearest to x / scale, the scale of
least squared error for these levels is sum(t x) / sum(t t), and rounded to its stored type, s, it leaves the error sum(x x) - s
(2 sum(t x) - s sum(t t)).  The s of least error is stored, the first of equal ones, and every element takes the level nearest
to it.

The same bytes come out on every machine: each operation is one of IEEE arithmetic on one element (float32; float64 once a number
stands for a group), and sums are made in the order of a group's elements.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from llmbuild.quantization.rounding import HALF_UNIT, numpy_dtype
from llmbuild.quantization.scheme import ComputeDtype, Scheme

Array = np.ndarray[Any, Any]

TRIES: dict[int, tuple[float, ...]] = {
    3: (1.2, 1.0625, 0.95),
    4: (1.0625, 1.0, -0.9),
    8: (1.0, 0.9875, 0.95),
}
"""Where the element of largest magnitude would lie, relative to the level z + 1, by bits; below 0 it lies on the other side.

The best three of 22 for the matrices of all-MiniLM-L6-v2.  Of the squared error of "round" they leave 0.511 (3 bits, groups of
40), 0.704 (4 bits) and 0.836 (8 bits, groups of 32); 66 of them leave 0.696 in 4 bits."""

_LARGEST: dict[ComputeDtype, float] = {
    "float16": 65504.0,
    "bfloat16": float(np.uint32(0x7F7F0000).view(np.float32)),
    "float32": float(np.finfo(np.float32).max),
}
LEAST = np.float32(2.0**-100)
"""A group whose elements are all smaller is stored as zeros: the reciprocals of such scales would overflow."""


def tries_for(scheme: Scheme, tries: Mapping[int, tuple[float, ...]]) -> tuple[float, ...]:
    """Those for the number of bits that is nearest to the scheme's."""
    return tries[min(tries, key=lambda bits: abs(bits - scheme.bits))]


class BestScales:
    """The scales of least squared error so far, in the scheme's dtype: of equal ones the first, and 0 before any."""

    def __init__(self, scheme: Scheme, groups: int) -> None:
        # A power of two divides exactly: the last level times this scale is the largest finite number.
        self._most = _LARGEST[scheme.dtype] / (scheme.max_int + 1)
        self.scales: Array = np.zeros(groups, numpy_dtype(scheme.dtype))
        self._least: Array = np.full(groups, np.inf)

    def refit(self, products: Array, squares: Array) -> None:
        """Take for each group the best scale for some levels t of its elements x, where it leaves less than those before: from
        sum(t x) and sum(t t), both under the same weights if there are any."""
        scale = np.divide(products, squares, out=np.zeros_like(products), where=squares > 0)
        stored = np.clip(scale, -self._most, self._most).astype(self.scales.dtype)
        wide = stored.astype(np.float64)
        # The squared error less sum(x x).
        error = wide * (wide * squares - 2 * products)
        better = error < self._least
        np.copyto(self.scales, stored, where=better)
        np.copyto(self._least, error, where=better)


class Searched:
    """Chooses digits and scales; see the module's docstring and `pack.Levels`."""

    def __init__(self, scheme: Scheme) -> None:
        self._scheme = scheme
        self._last = np.float32(scheme.max_int + 1)
        self._zero = np.float32(scheme.max_int)
        self._tries = tries_for(scheme, TRIES)

    def choose(self, values: Array, largest: Array, source: np.dtype[Any], digits: Array, other: Array) -> Array:
        """See `pack.Levels.choose`."""
        if source == np.float16:
            np.multiply(values, HALF_UNIT, out=values)
        levels = other.reshape(values.shape)
        product = np.empty_like(levels)
        signed = np.where(
            _of_groups(np.maximum, np.maximum.reduce(values, axis=0), largest.size) == largest, largest, -largest
        )
        best = BestScales(self._scheme, largest.size)
        for part in self._tries:
            start = np.where(largest < LEAST, np.float32(0), np.float32(part) * self._last / signed)
            self._nearest(values, start, levels, part)
            best.refit(*_sums(values, levels, product, largest.size))
        scale = best.scales.astype(np.float32)
        self._nearest(values, np.where(scale == 0, np.float32(0), np.float32(1) / scale), levels)
        np.add(levels, self._zero, out=levels)
        np.copyto(digits, levels, casting="unsafe")
        return best.scales

    def _nearest(self, values: Array, inverse: Array, levels: Array, part: float | None = None) -> None:
        """levels = the levels nearest to values * inverse, whole numbers from -z to z + 1.

        With `part` the inverse is that of a try, which keeps to one side, or both, by itself.
        """
        np.multiply(values, np.repeat(inverse, values.shape[1] // max(1, inverse.size)), out=levels)
        np.rint(levels, out=levels)
        reach = float("inf") if part is None else round(abs(part) * float(self._last))
        if reach > self._zero:
            np.maximum(levels, -self._zero, out=levels)
        if reach > self._last:
            np.minimum(levels, self._last, out=levels)


def _sums(values: Array, levels: Array, product: Array, groups: int) -> tuple[Array, Array]:
    """sum(level * value) and sum(level * level) of each group, float64; `product` is scratch."""
    np.multiply(levels, values, out=product)
    products = np.add.reduce(product, axis=0)
    np.multiply(levels, levels, out=product)
    squares = np.add.reduce(product, axis=0)
    both = (sums.astype(np.float64) for sums in (products, squares))
    return tuple(_of_groups(np.add, sums, groups) for sums in both)  # type: ignore[return-value]


def _of_groups(combine: np.ufunc, columns: Array, groups: int) -> Array:
    """One number for each group, which has some columns beside each other."""
    each = columns.reshape(groups, -1)
    found: Array = each[:, 0]
    for lane in range(1, each.shape[1]):
        found = combine(found, each[:, lane])
    return found
