"""Common parts of the attention kernels' online softmax: powers of two, and the logits' scale.

Scores are kept in units of log2: score * scale * log2(e), so that weights are powers of two and the log-sum-exp is to the
base 2, as TVM's cache merges it.  See "FlashAttention" (Dao et al., 2022) for the recurrence over blocks of keys.
"""

from __future__ import annotations

import math
from typing import Any

from tvm.script import tirx as T

LOG2_E = math.log2(math.e)

LOWEST = -5e4
"""The maximum before the first key, also the log-sum-exp of no keys at all.  The value is TVM's: results are merged."""

TAYLOR = [math.log(2) ** k / math.factorial(k) for k in range(7)]
"""Of 2^x around 0; the remainder is below 2e-7 for |x| up to 1/2."""


def exp2(x: Any) -> Any:
    """2^x of float32 x up to 0, as an expression that vectorizes; below 2^-126 it is 2^-126."""
    x = T.max(x, T.float32(-126))
    # Conversion rounds towards zero, which for a negative number is up: this is the nearest integer.
    whole = T.Cast("int32", x - T.float32(0.5))
    rest = x - T.Cast("float32", whole)
    power = T.float32(TAYLOR[-1])
    for coefficient in reversed(TAYLOR[:-1]):
        power = power * rest + T.float32(coefficient)
    return power * T.reinterpret("float32", T.shift_left(whole + 127, 23))


def lane_max(values: Any, row: Any) -> Any:
    """The largest of the 8 lanes of values[row, :]."""
    return T.max(
        T.max(T.max(values[row, 0], values[row, 4]), T.max(values[row, 2], values[row, 6])),
        T.max(T.max(values[row, 1], values[row, 5]), T.max(values[row, 3], values[row, 7])),
    )
