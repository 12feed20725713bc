"""Shapes and values of packed layers, element by element against the NumPy definition."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from llmbuild.quantization.scheme import SCHEMES
from tests.helpers.reference_quant import dequantize, quantize


@pytest.mark.parametrize(
    ("scheme", "n", "k", "weight", "scale"),
    [
        ("q4f16_1", 10, 688, (10, 88), (10, 22)),
        ("q4f16_0", 10, 688, (88, 10), (22, 10)),
        ("q3f16_1", 6, 41, (6, 8), (6, 2)),
    ],
)
def test_packed_shapes(scheme: str, n: int, k: int, weight: tuple[int, int], scale: tuple[int, int]) -> None:
    from llmbuild.quantization.layers import packed_shapes

    assert packed_shapes(SCHEMES[scheme], n, k) == (weight, scale)


@pytest.mark.parametrize("name", ["q4f32_1", "q4f16_1", "q4f16_0", "q3f16_1", "q3f16_0"])
@pytest.mark.parametrize("k", [80, 81])
def test_a_dequantized_weight_is_the_definitions(name: str, k: int) -> None:
    """Also where k is no whole number of groups; the compute dtype's own arithmetic gives the same bits."""
    import tvm
    from tvm import te

    from llmbuild.quantization.layers import dequantized_element, packed_shapes

    scheme = SCHEMES[name]
    n = 6
    weight = np.random.default_rng(3).standard_normal((n, k)).astype(np.float32)
    words, scales = quantize(weight, scheme.bits, scheme.group_size, scheme.dtype)
    expected = dequantize(words, scales, scheme.bits, scheme.group_size, k)
    if scheme.layout == "KN":
        words, scales = np.ascontiguousarray(words.T), np.ascontiguousarray(scales.T)
    word_shape, scale_shape = packed_shapes(scheme, n, k)
    q_weight = te.placeholder(word_shape, "uint32", "q_weight")
    q_scale = te.placeholder(scale_shape, scheme.dtype, "q_scale")

    def element(i: Any, j: Any) -> Any:
        return dequantized_element((q_weight, q_scale), scheme, i, j)

    out = te.compute((n, k), element, name="dequantize")
    run = tvm.compile(te.create_prim_func([q_weight, q_scale, out]), target=tvm.target.Target({"kind": "llvm"}))
    result = tvm.runtime.tensor(np.zeros((n, k), scheme.dtype))
    run(tvm.runtime.tensor(words), tvm.runtime.tensor(scales), result)
    assert (result.numpy() == expected).all()
