"""What packed weights stand for: the inverse of `pack`, for comparing."""

from __future__ import annotations

from typing import Any

import numpy as np

from llmbuild.quantization.scheme import Scheme

Array = np.ndarray[Any, Any]


def unpack(scheme: Scheme, q_weight: Array, q_scale: Array, shape: tuple[int, int], *, transposed: bool) -> Array:
    """The weight [n, k] in float32: (q - max_int) * scale, each product rounded to the scheme's dtype as kernels round it.

    `transposed` is that of `pack.packed_shapes`.
    """
    words, scales = (q_weight.T, q_scale.T) if transposed else (q_weight, q_scale)
    rows, (n, k) = len(words), shape
    places = np.arange(scheme.elements_per_word, dtype=np.uint32) * np.uint32(scheme.bits)
    numbers = (words[:, :, None] >> places) & np.uint32((1 << scheme.bits) - 1)
    values = numbers.reshape(rows, -1).astype(np.int32) - scheme.max_int
    groups = values.reshape(rows, -1, scheme.group_size).astype(scales.dtype) * scales[:, :, None]
    found: Array = groups.astype(np.float32).reshape(rows, -1)[:n, :k]
    return found
