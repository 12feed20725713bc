"""Group quantization of a weight [N, K] into packed words and scales, as MLC LLM stores them.

The definition of the method "round", in the compute dtype's own arithmetic (each operation rounded to it), for a group of `g`
elements along K:

    scale = max|w| / max_int          q = clip(round_half_even(w / scale + max_int), 0, 2 * max_int)

`llmbuild.quantization.search` has the method "search", which MLC LLM's runtimes read as well.  Element i of a uint32 word sits
at bits i * bits, low bits first; a group fills a whole number of words, and the elements that pad the last group pack as 0.  A
group whose scale is 0 (all its elements are zero, or so small that max|w| / max_int underflows) packs as the zero point
`max_int` and a scale of 0: it dequantizes to exact zeros, and no NaN is ever stored.

How it is fast with NumPy alone: a block of rows is transposed once, so that every later step is one long contiguous loop, and
the blocks are small enough for a core's share of the cache.  Elements are moved by twos or fours, so that the transposed block
is [g / lanes, groups * lanes]; it is then split into the first and the second elements of the pairs, which are one shift apart
in a 32-bit register and again in the packed pair.  `llmbuild.quantization.rounding` has the arithmetic.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, Future
from typing import Any, Protocol

import numpy as np

from llmbuild.quantization.rounding import (
    OVERFLOW,
    Rounded,
    cast_block,
    largest_magnitudes,
    numpy_dtype,
    widen_half,
    widen_pairs,
)
from llmbuild.quantization.scheme import ComputeDtype, Method, Scheme
from llmbuild.quantization.search import Searched

BLOCK_ELEMENTS = 1 << 18
"""Elements of a block of rows, with 10 bytes of buffers for each: as small as it can be while a thread spends its time inside
NumPy's loops and not at the interpreter's lock, which smaller blocks were measured to do."""

BLOCKS_PER_JOB = 2
"""Blocks that one job of the executor packs."""

Array = np.ndarray[Any, Any]


class UnfitValueError(ValueError):
    """A value that cannot be stored: NaN, infinite, or beyond the range of the dtype it is cast to."""


def packed_shapes(
    scheme: Scheme, n: int, k: int, *, transposed: bool = False
) -> tuple[tuple[int, int], tuple[int, int]]:
    """The shapes of (q_weight, q_scale) for a weight [n, k]; both transposed where the layout is KN.

    Raises ValueError for a scheme that does not quantize, whose words do not hold whole pairs of at most 8 bits an element, or
    whose group does not fill whole words.
    """
    if not scheme.quantized:
        raise ValueError(f"{scheme.name} does not quantize")
    if scheme.bits > 8 or scheme.elements_per_word % 2:
        raise ValueError(
            f"{scheme.name}: words of {scheme.elements_per_word} elements of {scheme.bits} bits are not packed"
        )
    if scheme.group_size <= 0 or scheme.group_size % scheme.elements_per_word:
        raise ValueError(
            f"{scheme.name}: a group of {scheme.group_size} does not fill words of {scheme.elements_per_word} elements"
        )
    groups = -(-k // scheme.group_size)
    words = groups * scheme.words_per_group
    return ((words, n), (groups, n)) if transposed else ((n, words), (n, groups))


class Levels(Protocol):
    """A method of choosing scales and digits."""

    def choose(self, values: Array, largest: Array, source: np.dtype[Any], digits: Array, other: Array) -> Array:
        """Fill `digits` (uint8 or uint16, 0 to 2 * max_int + 1), and return the scales of the groups, in the scheme's dtype.

        `values` [any, groups * times] are those of the groups, `times` beside each other, `largest` [groups] their magnitudes: of
        `source`, in float32, the values of float16 still divided by `HALF_UNIT`.  Both are overwritten, as is `other`, as many
        float32 numbers.
        """
        ...


METHODS: Mapping[Method, Callable[[Scheme], Levels]] = {
    "round": Rounded,
    "search": Searched,
    # Of a parameter of whose inputs nothing is known; `llmbuild.quantization.calibrated` has the others.
    "calibrated": Searched,
}


class Packer:
    """Packs one weight [n, k] block by block into `q_weight` (uint32) and `q_scale` (the compute dtype).

    `pack_rows` may be called from several threads at once for disjoint rows; the result does not depend on the order.
    """

    def __init__(self, scheme: Scheme, n: int, k: int, *, transposed: bool = False) -> None:
        weight_shape, scale_shape = packed_shapes(scheme, n, k, transposed=transposed)
        self.scheme, self.n, self.k, self.transposed = scheme, n, k, transposed
        self.groups = -(-k // scheme.group_size)
        self.q_weight: Array = np.empty(weight_shape, np.uint32)
        self.q_scale: Array = np.empty(scale_shape, numpy_dtype(scheme.dtype))
        self.rows_per_block = max(1, BLOCK_ELEMENTS // max(1, self.groups * scheme.group_size))
        self._levels = METHODS[scheme.method](scheme)
        # Two digits are joined in the smallest integer; a pair that fills it lies beside the next as a word has them.
        self._pair = np.dtype(np.uint8 if scheme.bits <= 4 else np.uint16)
        self._whole = scheme.bits * 2 == self._pair.itemsize * 8
        self._lanes = 4 if self._whole else 2
        pieces = scheme.elements_per_word // self._lanes
        self._shifts = (np.arange(pieces, dtype=np.uint32) * np.uint32(scheme.bits * self._lanes))[None, :, None]
        places = np.arange(scheme.group_size).reshape(-1, 1, self._lanes // 2, 2)
        self._kept = (places < k % scheme.group_size).astype(np.uint8).transpose(3, 0, 1, 2)

    def submit(self, executor: Executor, source: Array, first_row: int = 0) -> Iterator[Future[None]]:
        """Queue the blocks of `source` [rows, k], which become rows `first_row`… of the result."""
        step = self.rows_per_block * BLOCKS_PER_JOB
        for row in range(0, source.shape[0], step):
            yield executor.submit(self.pack_all, source[row : row + step], first_row + row)

    def pack_all(self, source: Array, first_row: int = 0) -> None:
        """`pack_rows` for any number of rows, block by block."""
        for row in range(0, source.shape[0], self.rows_per_block):
            self.pack_rows(source[row : row + self.rows_per_block], first_row + row)

    def pack_rows(self, source: Array, first_row: int) -> None:
        """Pack `source` [rows, k] (float16, bfloat16, float32 or float64) into rows `first_row`….

        Raises UnfitValueError when a value is NaN or infinite, or overflows the compute dtype.
        """
        if source.dtype == np.float64:
            with np.errstate(over="ignore"):
                source = source.astype(numpy_dtype(self.scheme.dtype))
        rows, size = source.shape[0], self.scheme.group_size
        scratch = _scratch(size * rows * self.groups)
        with np.errstate(all="ignore"):
            largest = self._gather(source, scratch)
            if largest.size and not largest.max() < OVERFLOW[self.scheme.dtype]:
                raise UnfitValueError(describe_unfit(source, self.scheme.dtype))
            values = scratch.values.reshape(-1, largest.size * self._lanes // 2)
            digits = scratch.staging.view(self._pair)[: values.size].reshape(values.shape)
            scale = self._levels.choose(values, largest, source.dtype, digits, scratch.other)
        self._pack_words(digits, scratch, rows, first_row)
        place = scale.reshape(rows, self.groups)
        if self.transposed:
            self.q_scale[:, first_row : first_row + rows] = place.T
        else:
            self.q_scale[first_row : first_row + rows] = place

    def _gather(self, source: Array, scratch: _Scratch) -> Array:
        """Fill `scratch.values` [2, g / lanes, rows, groups, lanes / 2] with the elements of the pairs in `source` [rows, k] as
        float32, those of float16 divided by `HALF_UNIT`; zeros where the last group is padded.

        Returns max|w| of each group, float32 [rows * groups].
        """
        size, rows, lanes = self.scheme.group_size, source.shape[0], self._lanes
        full, rest = divmod(self.k, size)
        wide = source.dtype == np.float32
        values = scratch.values.reshape(2, size // lanes, rows, self.groups, lanes // 2)
        # Sixteen-bit sources are moved as integers and widened afterwards: NumPy's own half conversions are ten times slower.
        moved = np.dtype(np.uint32 if lanes == 2 else np.uint64) if not wide else np.dtype(np.float32)
        raw = source if wide else source.view(np.uint16)

        def move(part: Array, first: int) -> None:
            count = part.shape[1] // size
            if wide:
                pairs = part.reshape(rows, count, size // lanes, lanes // 2, 2)
                values[:, :, :, first : first + count] = pairs.transpose(4, 2, 0, 1, 3)
            else:
                into = scratch.staging.view(moved).reshape(size // lanes, rows, self.groups)
                into[:, :, first : first + count] = part.view(moved).reshape(rows, count, -1).transpose(2, 0, 1)

        if full:
            move(raw[:, : full * size], 0)
        if rest:
            padded = np.zeros((rows, size), raw.dtype)
            padded[:, :rest] = raw[:, full * size :]
            move(padded, full)
        if wide:
            return largest_magnitudes(scratch.values, scratch.other, rows * self.groups, lanes // 2)
        largest = largest_magnitudes(scratch.staging, scratch.other, rows * self.groups, lanes)
        widen_pairs(scratch.staging, values.reshape(2, -1), source.dtype)
        return widen_half(largest) if source.dtype == np.float16 else cast_block(largest.view(source.dtype), "float32")

    def _pack_words(self, digits: Array, scratch: _Scratch, rows: int, first_row: int) -> None:
        """Put the digits [2 * g / lanes, rows * groups * lanes / 2] together and store the words."""
        words, lanes = self.scheme.words_per_group, self._lanes
        if self.k % self.scheme.group_size:
            padded = digits.reshape(2, -1, rows, self.groups, lanes // 2)[:, :, :, -1]
            np.multiply(padded, self._kept, out=padded)
        first, second = digits.reshape(2, -1)
        # NumPy multiplies bytes ten times faster than it shifts them.
        np.multiply(second, self._pair.type(1 << self.scheme.bits), out=second)
        np.bitwise_or(first, second, out=first)
        joined = first.view(np.dtype(f"u{self._pair.itemsize * lanes // 2}"))
        if self._whole and not self.transposed:
            # Low bits first is how the pieces of a word lie in memory.
            parts = self.q_weight.view(joined.dtype).reshape(self.n, self.groups, -1)
            parts[first_row : first_row + rows] = joined.reshape(-1, rows, self.groups).transpose(1, 2, 0)
            return
        pieces = scratch.values.view(np.uint32)[: joined.size].reshape(words, -1, rows * self.groups)
        pieces[...] = joined.reshape(pieces.shape)
        np.left_shift(pieces, self._shifts, out=pieces)
        place = np.bitwise_or.reduce(pieces, axis=1).reshape(words, rows, self.groups)
        if self.transposed:
            target = self.q_weight.reshape(self.groups, words, self.n)
            target[:, :, first_row : first_row + rows] = place.transpose(2, 0, 1)
        else:
            target = self.q_weight.reshape(self.n, self.groups, words)
            target[first_row : first_row + rows] = place.transpose(1, 2, 0)


def pack(
    weight: Array, scheme: Scheme, *, transposed: bool = False, executor: Executor | None = None
) -> tuple[Array, Array]:
    """(q_weight, q_scale) of `weight` [N, K]; see `Packer`.  With an executor the blocks run on its threads."""
    packer = Packer(scheme, weight.shape[0], weight.shape[1], transposed=transposed)
    if executor is not None:
        for future in list(packer.submit(executor, weight)):
            future.result()
    else:
        packer.pack_all(weight)
    return packer.q_weight, packer.q_scale


def cast(values: Array, dtype: ComputeDtype) -> Array:
    """`values` rounded to `dtype`, half to even; the same array when it has that dtype already.

    Raises UnfitValueError when a value is NaN or infinite, or overflows `dtype`.
    """
    target = numpy_dtype(dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        result = values if values.dtype == target else cast_block(values, dtype)
    bits, infinity = (np.uint32, 0x7F800000) if dtype == "float32" else (np.uint16, 0x7F80)
    if dtype == "float16":
        infinity = 0x7C00
    largest = np.bitwise_and(result.view(bits), bits((1 << (8 * target.itemsize - 1)) - 1)).max(initial=0)
    if largest >= infinity:
        raise UnfitValueError(describe_unfit(values, dtype))
    return result


def describe_unfit(values: Array, dtype: str) -> str:
    """Which value of `values` cannot be stored in `dtype`: the first NaN, infinity, or overflow, with its position."""
    wide = values.astype(np.float64)
    for bad, what in ((np.isnan(wide), "NaN"), (np.isinf(wide), "infinity")):
        if bad.any():
            return f"it holds {int(bad.sum())} value(s) that are {what}"
    worst = float(np.abs(wide).max(initial=0))
    return f"it holds a value of magnitude {worst:.6g}, which overflows {dtype}"


class _Scratch(threading.local):
    """One thread's buffers, kept between blocks so that no page is mapped twice; `take` cuts them to a block's elements."""

    def __init__(self) -> None:
        self._size = 0
        self.take(0)

    def take(self, size: int) -> None:
        if self._size < size or not size:
            self._values = np.empty(size, np.float32)
            self._other = np.empty(size, np.float32)
            self._staging = np.empty(size, np.uint16)
            self._size = size
        self.values, self.other, self.staging = self._values[:size], self._other[:size], self._staging[:size]


_buffers = _Scratch()


def _scratch(size: int) -> _Scratch:
    _buffers.take(size)
    return _buffers
