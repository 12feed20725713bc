"""The merge of two attention results as an OpenCL kernel, which PoCL runs one thread after the other: no step in common."""

from __future__ import annotations

import numpy as np
import pytest

from llmbuild.compiler.kernels.gpu.merge import merge_kernel
from tests.helpers.opencl import compile_kernel, require


@pytest.mark.parametrize(
    ("heads", "dim"),
    # A block that is not full, several blocks of which the last is not full, and heads of no power of two.
    [(4, 32), (9, 128), (3, 80), (1, 6)],
)
def test_results_over_two_sets_of_keys(heads: int, dim: int) -> None:
    require()
    rng = np.random.default_rng(2)
    v, v_other = rng.standard_normal((2, 3, heads, dim)).astype(np.float32)
    s, s_other = rng.uniform(-40, 40, (2, 3, heads)).astype(np.float32)
    # No key at all has the weight zero, as attention without keys says it.
    s_other[1] = -5e4
    weights = np.exp2(np.float64([s, s_other]))
    total = weights.sum(0)
    expected = (weights[0] / total)[..., None] * v + (weights[1] / total)[..., None] * v_other
    expected_s = np.log2(total)
    compile_kernel(merge_kernel(heads, dim, "float32"))(v, s, v_other, s_other)
    np.testing.assert_allclose(v, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(s, expected_s, rtol=1e-5)
