"""What products by bytes share (see `packed_nk_int8`): the layout of the weights that they take, and the bytes of rows."""

from __future__ import annotations

from typing import Any

from tvm.script import tirx as T

from llmbuild.compiler.kernels.cpu.rounding import lanes, wide
from llmbuild.compiler.kernels.cpu.tile import LANES
from llmbuild.quantization.scheme import SCHEMES

LAYOUT = SCHEMES["q4f32_1"]
GROUP, ZERO = LAYOUT.group_size, LAYOUT.max_int
STEP = 8 * LANES
"""Elements of eight words: two groups.  The depth of a product must be a multiple of it."""


def bytes_of(values: Any, first: int) -> Any:
    """Every second row of small signed numbers [8, LANES], from `first` on, as the bytes of words."""
    word = None
    for index in range(4):
        low = T.bitwise_and(values[first + 2 * index, lanes(0)], wide(T.int32(255)))
        part = T.shift_left(low, wide(T.int32(8 * index)))
        word = part if word is None else T.bitwise_or(word, part)
    return word


def every(count: int) -> Any:
    """The indices of a vector of so many lanes."""
    return T.ramp(0, 1, count)
