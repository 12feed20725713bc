"""The arithmetic of quantizing in a compute dtype, exactly, with float32 and integers and few steps an element.

A float32 quotient or sum of operands with p bits, rounded again to p bits, equals the directly rounded one when 24 >= 2 p + 2
(Figueroa, "When is double rounding innocuous?", 1995), which holds for float16 (p = 11) and bfloat16 (p = 8).  Two facts make
the second rounding cheap:

- A quotient of two numbers of p bits is never halfway between two of them (the halfway number has p + 1 bits, and so has its
  product with the divisor).  So adding half a step to the bits and cutting off rounds it, and as its distance from halfway is
  over 2^-(2 p + 1) of it, which is 2^-23 for float16, multiplying by the float32 reciprocal gives the same number.
- Of the sum y = quotient + max_int only the integer that it rounds to is wanted.  Below (max_int + 1) / 2 the quotient has no
  bits that the sum would lose; up to max_int + 1 and above that, the steps of the sum are those of float32 numbers below and
  above a power of two, which a constant moves to y = max_int + 1: one addition rounds as both steps want.  Below
  (max_int + 1) / 2 that rounds a bit too far, which takes the quotient beside the one halfway integer there, max_int / 2, to it
  where that is the even neighbour, and so changes the integer of that single quotient (`Rounded._odd`).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from llmbuild.quantization.scheme import ComputeDtype, Scheme

Array = np.ndarray[Any, Any]

HALF_UNIT = np.float32(2.0**112)
"""What `widen_pairs` leaves float16 values to be multiplied by."""
OVERFLOW: dict[ComputeDtype, float] = {
    "float16": 65520.0,  # The least value that rounds to infinity.
    "bfloat16": float(np.uint32(0x7F7F8000).view(np.float32)),
    "float32": float("inf"),
}
_ABS_16, _ABS_32 = np.uint16(0x7FFF), np.uint32(0x7FFFFFFF)
_INFINITY_16 = np.uint16(0x7C00)
_EXPONENT = np.uint32(0x7F800000)
_TO_INTEGER = 1.5 * 2.0**23
"""Adding it to a small float32 rounds it half to even and leaves the integer in the low mantissa bits."""
_DROPPED_BITS: dict[ComputeDtype, int] = {"float16": 13, "bfloat16": 16, "float32": 0}
_TINY: dict[ComputeDtype, float] = {"float16": 2.0**-14, "bfloat16": 2.0**-126, "float32": 2.0**-126}


def numpy_dtype(name: str) -> np.dtype[Any]:
    """The NumPy dtype of "float16", "bfloat16" (ml_dtypes), "float32", "uint32"."""
    if name == "bfloat16":
        import ml_dtypes

        bfloat16: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
        return bfloat16
    return np.dtype(name)


def round_to_bfloat16(values: Array) -> Array:
    """The bits (uint16) of finite float32 values rounded to bfloat16, half to even."""
    bits = values.view(np.uint32)
    odd = (bits >> np.uint32(16)) & np.uint32(1)
    return ((bits + (odd + np.uint32(0x7FFF))) >> np.uint32(16)).astype(np.uint16)


class Rounded:
    """The method "round" (see `llmbuild.quantization.pack`): digits are 0 to 2 * max_int."""

    def __init__(self, scheme: Scheme) -> None:
        self.dtype, self.max_int = scheme.dtype, scheme.max_int
        dtype, max_int = self.dtype, self.max_int
        dropped = _DROPPED_BITS[dtype]
        self._half_step, self._kept = np.uint32(1 << dropped >> 1), np.uint32(0xFFFFFFFF << dropped & 0xFFFFFFFF)
        # Where the sum's steps grow, at y = max_int + 1, `value + zero` is a power of two.
        self._zero = (max_int + 1) * 2.0**dropped - 1 if dropped else float(max_int)
        step = 2.0 ** (dropped - 23) * (max_int + 1) / 4
        # A halfway integer goes to the even one: from 3.5 up, so that the quotient below it is the odd one, from 0.5 down.
        side = 1 if max_int % 4 == 1 else -1
        self._mend: np.ufunc = np.add if side > 0 else np.subtract
        is_even = max_int / 2 % (4 * step) == 0
        self._odd = np.float32(-max_int / 2 + side * step if is_even else np.nan)

    def choose(self, values: Array, largest: Array, source: np.dtype[Any], digits: Array, other: Array) -> Array:
        """See `pack.Levels.choose`."""
        shrunk = source == np.float16
        if not is_exact(source, self.dtype):
            if shrunk:
                np.multiply(values, HALF_UNIT, out=values)
                shrunk = False
            round_in_place(values, other.reshape(values.shape), self.dtype)
            round_in_place(largest, np.empty_like(largest), self.dtype)
        scale, must_clip = self.scales(largest)
        odd = other.view(np.uint8)[: digits.size].reshape(digits.shape)
        self.quantize(values, largest, digits, odd, shrunk=shrunk, must_clip=must_clip)
        return scale

    def scales(self, largest: Array) -> tuple[Array, bool]:
        """(scales in the compute dtype, whether digits must be clipped) from max|w| of each group, which becomes the divisor."""
        np.divide(largest, np.float32(self.max_int), out=largest)
        round_in_place(largest, np.empty_like(largest), self.dtype)
        # A normal scale is so close to max|w| / max_int that no element rounds out of range; a subnormal one is not.
        must_clip = bool(largest.size and largest.min() < _TINY[self.dtype])
        normal = self.dtype == "float16" and not must_clip
        scale = narrow_half(largest) if normal else cast_block(largest, self.dtype)
        if must_clip:
            # With a divisor of 1 the tiny elements of a group of scale 0 vanish beside max_int: they pack as the zero point.
            largest[largest == 0] = 1
        return scale, must_clip

    def quantize(
        self, values: Array, divisor: Array, digits: Array, odd: Array, *, shrunk: bool, must_clip: bool
    ) -> None:
        """Fill `digits` (uint8 or uint16) from `values` [any, groups * times].

        `values` is overwritten, as are `odd`, bytes of that shape, and `divisor` [groups].  The values are to be multiplied by
        `HALF_UNIT` where they are `shrunk`.
        """
        if shrunk and divisor.size and divisor.min() < _TINY["float16"]:
            # The divisor would not be exact when it is shrunk, nor its reciprocal finite.
            np.multiply(values, HALF_UNIT, out=values)
            shrunk = False
        times = values.shape[1] // max(1, divisor.size)
        if self.dtype == "float16":
            np.divide(HALF_UNIT if shrunk else np.float32(1), divisor, out=divisor)
            np.multiply(values, np.repeat(divisor, times), out=values)
        else:
            if shrunk:
                np.divide(divisor, HALF_UNIT, out=divisor)
            np.divide(values, np.repeat(divisor, times), out=values)
        if self._half_step:
            bits = values.view(np.uint32)
            np.add(bits, self._half_step, out=bits)
            np.bitwise_and(bits, self._kept, out=bits)
            np.equal(values, self._odd, out=odd.view(np.bool_))
        np.add(values, np.float32(self._zero), out=values)
        low = self._zero - self.max_int
        if must_clip:
            np.clip(values, np.float32(low), np.float32(low + 2 * self.max_int), out=values)
        np.add(values, np.float32(_TO_INTEGER - low), out=values)
        np.copyto(digits, values.view(np.uint32), casting="unsafe")
        if self._half_step:
            self._mend(digits, odd, out=digits)


def is_exact(source: np.dtype[Any], dtype: ComputeDtype) -> bool:
    """Whether every value of the source dtype is one of the compute dtype (or has already been cast)."""
    return dtype == "float32" or source == numpy_dtype(dtype)


def largest_magnitudes(values: Array, other: Array, groups: int, lanes: int) -> Array:
    """The bits of max|w| of each group, from the bits of `values` [any, groups, lanes]; `other` is scratch.

    The magnitudes of IEEE numbers are ordered as their bits without the sign, NaN above infinity.
    """
    wide = values.dtype.itemsize == 4
    bits = values.view(np.uint32 if wide else np.uint16)
    magnitudes = other.view(bits.dtype)[: bits.size]
    np.bitwise_and(bits, _ABS_32 if wide else _ABS_16, out=magnitudes)
    by_lane = np.maximum.reduce(magnitudes.reshape(-1, groups * lanes), axis=0).reshape(groups, lanes)
    largest: Array = np.maximum.reduce(np.ascontiguousarray(by_lane.T), axis=0)
    return largest.view(np.float32) if wide else largest


def widen_half(bits: Array) -> Array:
    """float32 values of the bits (uint16) of float16 magnitudes; NaN becomes infinity."""
    widened: Array = np.left_shift(bits.astype(np.uint32), np.uint32(13)).view(np.float32)
    np.multiply(widened, HALF_UNIT, out=widened)
    if bits.max(initial=0) >= _INFINITY_16:
        widened[bits >= _INFINITY_16] = np.inf
    return widened


def narrow_half(values: Array) -> Array:
    """float16 of float32 values that are positive normal float16 numbers; NumPy's own conversion takes ten times as long."""
    bits = np.right_shift(values.view(np.uint32), np.uint32(13))
    np.subtract(bits, np.uint32(112 << 10), out=bits)
    return bits.astype(np.uint16).view(np.float16)


def widen_pairs(raw: Array, values: Array, source: np.dtype[Any]) -> None:
    """Fill float32 `values` [2, pairs] from the bits `raw` (uint16) of float16 or bfloat16 numbers, exactly.

    Those of finite float16 numbers are divided by `HALF_UNIT`: the bits are shifted into place and the exponent's bias stays,
    so that subnormal numbers become subnormal ones.
    """
    pairs, (first, second) = raw.view(np.uint32), values.view(np.uint32)
    np.left_shift(pairs, np.uint32(16), out=first)
    if source == np.float16:
        np.right_shift(first.view(np.int32), np.int32(3), out=first.view(np.int32))
        np.right_shift(pairs.view(np.int32), np.int32(3), out=second.view(np.int32))
        # The sign was extended into the exponent's upper bits: keep the sign, five exponent bits and the mantissa.
        np.bitwise_and(values.view(np.uint32), np.uint32(0x8FFFE000), out=values.view(np.uint32))
    else:
        np.bitwise_and(pairs, np.uint32(0xFFFF0000), out=second)


def round_in_place(values: Array, other: Array, dtype: ComputeDtype) -> None:
    """Round finite float32 `values` to `dtype`, half to even, with `other` as scratch of the same shape.

    Adding and subtracting 1.5 * 2^(e + dropped bits), e the value's exponent, makes the adder round at the wanted bit; the
    step is bounded from below as that of float16.  bfloat16 goes through integer arithmetic because the constant would
    overflow for exponents above 110.
    """
    if dtype == "float32":
        return
    if dtype == "bfloat16":
        values.view(np.uint32)[...] = round_to_bfloat16(values).astype(np.uint32) << np.uint32(16)
        return
    np.bitwise_and(values.view(np.uint32), _EXPONENT, out=other.view(np.uint32))
    np.maximum(other, np.float32(_TINY[dtype]), out=other)
    np.multiply(other, np.float32(1.5 * 2.0 ** _DROPPED_BITS[dtype]), out=other)
    np.add(values, other, out=values)
    np.subtract(values, other, out=values)


def cast_block(values: Array, dtype: ComputeDtype) -> Array:
    """`values` of another float dtype in `dtype`; NaN stays NaN and an overflow becomes infinite."""
    if values.dtype == np.float32 and dtype == "bfloat16":
        rounded = round_to_bfloat16(values)
        # The integer rounding may carry a NaN into another pattern, so its exponent is put back.
        rounded[np.isnan(values)] = 0x7FC0
        return rounded.view(numpy_dtype(dtype))
    if values.dtype.itemsize == 2 and values.dtype != np.float16:
        wide: Array = np.left_shift(values.view(np.uint16).astype(np.uint32), np.uint32(16)).view(np.float32)
        return wide if dtype == "float32" else cast_block(wide, dtype)
    if values.dtype == np.float16 and dtype == "bfloat16":
        return cast_block(values.astype(np.float32), dtype)
    return values.astype(numpy_dtype(dtype))
