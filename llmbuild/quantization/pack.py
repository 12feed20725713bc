"""Group quantization of a weight [N, K] into packed words and scales, bit for bit as MLC LLM stores them.

The definition, in the compute dtype's own arithmetic (each operation rounded to it), for a group of `g` elements along K:

    scale = max|w| / max_int          q = clip(round_half_even(w / scale + max_int), 0, 2 * max_int)

Element i of a uint32 word sits at bits i * bits, low bits first; a group fills a whole number of words, and the elements that
pad the last group pack as 0.  A group whose scale is 0 (all its elements are zero, or so small that max|w| / max_int
underflows) packs as the zero point `max_int` and a scale of 0: it dequantizes to exact zeros, and no NaN is ever stored.

How it is fast with NumPy alone: a block of rows is transposed once into [g, groups], so that every later step is one long
contiguous loop in float32, and the blocks are small enough for a core's second-level cache.  Half precision is emulated
exactly: a float32 quotient or sum of operands with p bits, rounded again to p bits, equals the directly rounded one when
24 >= 2 p + 2 (Figueroa, "When is double rounding innocuous?", 1995), which holds for float16 (11) and bfloat16 (8).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Executor, Future
from typing import Any

import numpy as np

from llmbuild.quantization.scheme import ComputeDtype, Scheme

BLOCK_ELEMENTS = 1 << 17
"""Elements of a block of rows: small enough for the second-level cache (two float32 buffers of 512 KiB), large enough that
a thread spends its time inside NumPy's loops and not at the interpreter's lock."""

BLOCKS_PER_JOB = 8
"""Blocks that one job of the executor packs."""

Array = np.ndarray[Any, Any]

_ABS = np.uint32(0x7FFFFFFF)
_ABS_16 = np.uint16(0x7FFF)
_EXPONENT = np.uint32(0x7F800000)
_TO_INTEGER = np.float32(1.5 * 2.0**23)
"""Adding it to a small float32 rounds it half to even and leaves the integer in the low mantissa bits."""
_TO_INTEGER_BITS = 0x4B400000
_DROPPED_BITS: dict[ComputeDtype, int] = {"float16": 13, "bfloat16": 16, "float32": 0}
_TINY: dict[ComputeDtype, float] = {"float16": 2.0**-14, "bfloat16": 2.0**-126, "float32": 2.0**-126}
_OVERFLOW: dict[ComputeDtype, float] = {
    "float16": 65520.0,  # The least value that rounds to infinity.
    "bfloat16": float(np.uint32(0x7F7F8000).view(np.float32)),
    "float32": float("inf"),
}


class UnfitValueError(ValueError):
    """A value that cannot be stored: NaN, infinite, or beyond the range of the dtype it is cast to."""


def numpy_dtype(name: str) -> np.dtype[Any]:
    """The NumPy dtype of "float16", "bfloat16" (ml_dtypes), "float32", "uint32"."""
    if name == "bfloat16":
        import ml_dtypes

        bfloat16: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
        return bfloat16
    return np.dtype(name)


def packed_shapes(
    scheme: Scheme, n: int, k: int, *, transposed: bool = False
) -> tuple[tuple[int, int], tuple[int, int]]:
    """The shapes of (q_weight, q_scale) for a weight [n, k]; both transposed where the layout is KN.

    Raises ValueError for a scheme that does not quantize, or whose group does not fill whole words.
    """
    if not scheme.quantized:
        raise ValueError(f"{scheme.name} does not quantize")
    if scheme.group_size <= 0 or scheme.group_size % scheme.elements_per_word:
        raise ValueError(
            f"{scheme.name}: a group of {scheme.group_size} does not fill words of {scheme.elements_per_word} elements"
        )
    groups = -(-k // scheme.group_size)
    words = groups * scheme.words_per_group
    return ((words, n), (groups, n)) if transposed else ((n, words), (n, groups))


def round_to_bfloat16(values: Array) -> Array:
    """The bits (uint16) of finite float32 values rounded to bfloat16, half to even."""
    bits = values.view(np.uint32)
    odd = (bits >> np.uint32(16)) & np.uint32(1)
    return ((bits + (odd + np.uint32(0x7FFF))) >> np.uint32(16)).astype(np.uint16)


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
        words = sum(_TO_INTEGER_BITS << (scheme.bits * i) for i in range(scheme.elements_per_word))
        self._bias = np.uint32(words & 0xFFFFFFFF)
        self._shifts = (np.arange(scheme.elements_per_word, dtype=np.uint32) * np.uint32(scheme.bits))[None, :, None]

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
        scheme, rows = self.scheme, source.shape[0]
        count, size = rows * self.groups, scheme.group_size * rows * self.groups
        scratch = _scratch(size)
        values = scratch.values[:size].reshape(scheme.group_size, count)
        other = scratch.other[:size].reshape(scheme.group_size, count)
        with np.errstate(all="ignore"):
            largest = self._gather(source, values, other, scratch.staging[:size].reshape(values.shape))
            scale, divisor, must_clip = self._scales(source, largest)
            if not _is_exact(source.dtype, scheme.dtype):
                _round_in_place(values, other, scheme.dtype, subnormals=True)
            self._quantize(values, other, divisor, must_clip)
            self._pack_words(values, other, rows, first_row)
        place = scale.reshape(rows, self.groups)
        if self.transposed:
            self.q_scale[:, first_row : first_row + rows] = place.T
        else:
            self.q_scale[first_row : first_row + rows] = place

    def _gather(self, source: Array, values: Array, other: Array, staging: Array) -> Array:
        """Transpose `source` [rows, k] into float32 `values` [g, rows * groups], zeros where the last group is padded.

        Returns max|w| of each group, float32 [rows * groups].
        """
        size, rows = self.scheme.group_size, source.shape[0]
        full, rest = divmod(self.k, size)
        wide = source.dtype == np.float32
        # Sixteen-bit sources are moved as integers and widened afterwards: NumPy's own half conversions are ten times slower.
        moved = (values if wide else staging).reshape(size, rows, self.groups)
        raw = source if wide else source.view(np.uint16)
        moved[:, :, :full] = raw[:, : full * size].reshape(rows, full, size).transpose(2, 0, 1)
        if rest:
            moved[:rest, :, full] = raw[:, full * size :].T
            moved[rest:, :, full] = 0
        # The magnitudes of IEEE numbers are ordered as their bits without the sign, NaN above infinity.
        bits = (values if wide else staging).view(np.uint32 if wide else np.uint16)
        magnitudes = other.reshape(-1).view(bits.dtype)[: bits.size].reshape(bits.shape)
        np.bitwise_and(bits, _ABS if wide else _ABS_16, out=magnitudes)
        largest: Array = np.maximum.reduce(magnitudes, axis=0)
        if wide:
            return largest.view(np.float32)
        _widen(staging, values, source.dtype)
        return _cast_block(largest.view(source.dtype), "float32")

    def _scales(self, source: Array, largest: Array) -> tuple[Array, Array, bool]:
        """(scales in the compute dtype, the float32 divisors, whether results must be clipped), from max|w| of each group."""
        dtype = self.scheme.dtype
        if largest.size and not largest.max() < _OVERFLOW[dtype]:
            raise UnfitValueError(describe_unfit(source, dtype))
        divisor, other = largest, np.empty_like(largest)
        if not _is_exact(source.dtype, dtype):
            _round_in_place(divisor, other, dtype, subnormals=True)
        np.divide(divisor, np.float32(self.scheme.max_int), out=divisor)
        _round_in_place(divisor, other, dtype, subnormals=True)
        scale = _cast_block(divisor, dtype)
        # A normal scale is so close to max|w| / max_int that no element rounds out of range; a subnormal one is not.
        must_clip = False
        if divisor.size and divisor.min() < _TINY[dtype]:
            must_clip = True
            # With a divisor of 1 the tiny elements of a group of scale 0 vanish beside max_int: they pack as the zero point.
            divisor[divisor == 0] = 1
        return scale, divisor, must_clip

    def _quantize(self, values: Array, other: Array, divisor: Array, must_clip: bool) -> None:
        """Turn `values` [g, count] into `_TO_INTEGER` + q, in place; padding becomes q = 0."""
        scheme = self.scheme
        np.divide(values, divisor, out=values)
        _round_in_place(values, other, scheme.dtype)
        np.add(values, np.float32(scheme.max_int), out=values)
        _round_in_place(values, other, scheme.dtype)
        if must_clip:
            np.clip(values, np.float32(0), np.float32(2 * scheme.max_int), out=values)
        np.add(values, _TO_INTEGER, out=values)
        rest = self.k % scheme.group_size
        if rest:
            values.reshape(scheme.group_size, -1, self.groups)[rest:, :, -1] = _TO_INTEGER

    def _pack_words(self, values: Array, other: Array, rows: int, first_row: int) -> None:
        """Shift the integers of `values` together and store the words."""
        words, each = self.scheme.words_per_group, self.scheme.elements_per_word
        elements = values.view(np.uint32).reshape(words, each, -1)
        packed = other.reshape(-1).view(np.uint32)[: words * elements.shape[2]].reshape(words, -1)
        np.left_shift(elements, self._shifts, out=elements)
        np.add.reduce(elements, axis=1, out=packed)
        # Every element still carries the constant's bits; modulo 2^32 they add up to one number.
        np.subtract(packed, self._bias, out=packed)
        place = packed.reshape(words, rows, self.groups)
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
        result = values if values.dtype == target else _cast_block(values, dtype)
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


def _is_exact(source: np.dtype[Any], dtype: ComputeDtype) -> bool:
    """Whether every value of the source dtype is one of the compute dtype (or has already been cast)."""
    return dtype == "float32" or source == numpy_dtype(dtype)


def _widen(raw: Array, values: Array, source: np.dtype[Any]) -> None:
    """Fill float32 `values` from the bit patterns `raw` of finite float16 or of bfloat16 numbers, exactly."""
    bits = values.view(np.int32)
    bits[...] = raw.view(np.int16)
    if source == np.float16:
        np.left_shift(bits, np.int32(13), out=bits)
        # The sign was extended into the exponent's upper bits: keep the sign, five exponent bits and the mantissa.
        np.bitwise_and(values.view(np.uint32), np.uint32(0x8FFFE000), out=values.view(np.uint32))
        np.multiply(
            values, np.float32(2.0**112), out=values
        )  # From exponent bias 15 to 127; subnormals come out right.
    else:
        np.left_shift(bits, np.int32(16), out=bits)


def _round_in_place(values: Array, other: Array, dtype: ComputeDtype, *, subnormals: bool = False) -> None:
    """Round float32 `values` to the precision of `dtype`, half to even, with `other` as scratch of the same shape.

    Adding and subtracting 1.5 * 2^(e + dropped bits), e the value's exponent, makes the adder round at the wanted bit.
    `subnormals` bounds the step from below as float16 does; without it the exponent is taken as unbounded, which is right
    where tiny values are about to vanish in a sum.  Values are finite; bfloat16 weights go through integer arithmetic
    because the constant would overflow for exponents above 110.
    """
    dropped = _DROPPED_BITS[dtype]
    if not dropped:
        return
    if subnormals and dtype == "bfloat16":
        values.view(np.uint32)[...] = round_to_bfloat16(values).astype(np.uint32) << np.uint32(16)
        return
    np.bitwise_and(values.view(np.uint32), _EXPONENT, out=other.view(np.uint32))
    if subnormals:
        np.maximum(other, np.float32(_TINY[dtype]), out=other)
    np.multiply(other, np.float32(1.5 * 2.0**dropped), out=other)
    np.add(values, other, out=values)
    np.subtract(values, other, out=values)


def _cast_block(values: Array, dtype: ComputeDtype) -> Array:
    """`values` of another float dtype in `dtype`; NaN stays NaN and an overflow becomes infinite."""
    if values.dtype == np.float32 and dtype == "bfloat16":
        rounded = round_to_bfloat16(values)
        # The integer rounding may carry a NaN into another pattern, so its exponent is put back.
        rounded[np.isnan(values)] = 0x7FC0
        return rounded.view(numpy_dtype(dtype))
    if values.dtype.itemsize == 2 and values.dtype != np.float16:
        wide: Array = np.left_shift(values.view(np.uint16).astype(np.uint32), np.uint32(16)).view(np.float32)
        return wide if dtype == "float32" else _cast_block(wide, dtype)
    if values.dtype == np.float16 and dtype == "bfloat16":
        return _cast_block(values.astype(np.float32), dtype)
    return values.astype(numpy_dtype(dtype))


class _Scratch(threading.local):
    """One thread's buffers, kept between blocks so that no page is mapped twice."""

    def __init__(self) -> None:
        self.values = np.empty(0, np.float32)
        self.other = np.empty(0, np.float32)
        self.staging = np.empty(0, np.uint16)


_buffers = _Scratch()


def _scratch(size: int) -> _Scratch:
    if _buffers.values.size < size:
        _buffers.values = np.empty(size, np.float32)
        _buffers.other = np.empty(size, np.float32)
        _buffers.staging = np.empty(size, np.uint16)
    return _buffers
