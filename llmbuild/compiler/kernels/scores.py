"""What alters an attention score before the maximum, on every device: the soft cap, and the window by positions.

Scores are in units of log2, as the kernels keep them.  All of it is in expressions of float32 and int32 that vectorize.
"""

from __future__ import annotations

import math
from typing import Any

from tvm.script import tirx as T

NUMERATOR = (
    4.89352455891786e-03,
    6.37261928875436e-04,
    1.48572235717979e-05,
    5.12229709037114e-08,
    -8.60467152213735e-11,
    2.00018790482477e-13,
    -2.76076847742355e-16,
)
DENOMINATOR = (4.89352518554385e-03, 2.26843463243900e-03, 1.18534705686654e-04, 1.19825839466702e-06)
"""tanh(x) is x * NUMERATOR(x * x) / DENOMINATOR(x * x) with a relative error of 3.5e-7; the fractions are Eigen's."""

SATURATION = 7.90531110763549805
"""Where the fraction reaches 1."""


def tanh(x: Any) -> Any:
    """The hyperbolic tangent of float32, by multiplications and a division: the devices' own differ, and some give NaN for
    large arguments."""
    x = T.max(T.min(x, T.float32(SATURATION)), T.float32(-SATURATION))
    return x * _polynomial(NUMERATOR, x * x) / _polynomial(DENOMINATOR, x * x)


def capped(score: Any, cap: float) -> Any:
    """cap * tanh(score / cap), where `cap` is that of scores to the base e."""
    unit = cap * math.log2(math.e)
    return tanh(score * T.float32(1 / unit)) * T.float32(unit)


def magnitude(scale: Any, window: int | None) -> Any:
    """The factor of q k, of which a negative sign says that the layer has the window (if layers of the model have one)."""
    return scale if window is None else T.abs(scale)


def first_visible(position: Any, key_start: Any, window: int, scale: Any) -> Any:
    """The index of the first key that a query at `position` sees, where key 0 is at `key_start`; at least 0.

    It sees the `window` positions that end with its own, or all where the scale is not negative.
    """
    return T.if_then_else(scale < T.float32(0), T.max(position - key_start - (window - 1), 0), 0)


def _polynomial(coefficients: tuple[float, ...], x: Any) -> Any:
    value = T.float32(coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        value = value * x + T.float32(coefficient)
    return value
