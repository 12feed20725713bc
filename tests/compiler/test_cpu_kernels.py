"""The CPU linear kernels against NumPy, over widths with and without tails, row counts and number types."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from llmbuild.compiler.kernels.cpu import dense, group4
from tests.helpers.primfunc import compile_function

DTYPES = {"float32": np.dtype(np.float32), "float16": np.dtype(np.float16), "bfloat16": np.dtype(ml_dtypes.bfloat16)}
TOLERANCE = {"float32": 4e-6, "float16": 1e-3, "bfloat16": 8e-3}
OUTPUTS = (16, 17, 34, 64)
ROWS = (1, 2, 3, 5, 6, 7, 13)


def packed(n: int, k: int, dtype: np.dtype, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Random q [n, k/8], s [n, k/32] and the float32 weights they mean."""
    values = rng.integers(0, 15, (n, k)).astype(np.uint32)
    scales = (rng.random((n, k // 32)) * 0.1 + 0.01).astype(dtype)
    words = np.zeros((n, k // 8), np.uint32)
    for i in range(8):
        words |= values[:, i::8] << np.uint32(4 * i)
    return words, scales, (values.astype(np.float32) - 7) * np.repeat(scales.astype(np.float32), 32, axis=1)


def check(got: np.ndarray, x: np.ndarray, weight: np.ndarray, dtype: str) -> None:
    want = x.reshape(-1, x.shape[-1]).astype(np.float64) @ weight.astype(np.float64).T
    error = np.abs(got.reshape(want.shape).astype(np.float64) - want).max() / np.abs(want).max()
    assert error < TOLERANCE[dtype], error


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("k", [32, 64, 96, 320])
def test_group4(dtype: str, k: int) -> None:
    rng = np.random.default_rng(k)
    vector = compile_function(group4.vector_kernel(k, 1, dtype, dtype, dtype))
    matrix = compile_function(group4.matrix_kernel(k, 1, 0, dtype, dtype, dtype))
    for n in OUTPUTS:
        words, scales, weight = packed(n, k, DTYPES[dtype], rng)
        for rows in ROWS:
            x = rng.standard_normal((1, rows, k)).astype(DTYPES[dtype])
            y = np.zeros((1, rows, n), DTYPES[dtype])
            matrix(x, words, scales, y)
            check(y, x, weight, dtype)
        x = x[:, :1].copy()
        y = np.zeros((1, 1, n), DTYPES[dtype])
        vector(x, words, scales, y)
        check(y, x, weight, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("k", [7, 16, 40, 320])
def test_dense(dtype: str, k: int) -> None:
    rng = np.random.default_rng(k)
    vector = compile_function(dense.vector_kernel(k, 1, dtype, dtype, dtype))
    matrix = compile_function(dense.matrix_kernel(k, 1, 0, dtype, dtype, dtype))
    for n in OUTPUTS:
        weight = rng.standard_normal((n, k)).astype(DTYPES[dtype])
        for rows in ROWS:
            x = rng.standard_normal((1, rows, k)).astype(DTYPES[dtype])
            y = np.zeros((1, rows, n), DTYPES[dtype])
            matrix(x, weight, y)
            check(y, x, weight, dtype)
        x = x[:, :1].copy()
        y = np.zeros((1, 1, n), DTYPES[dtype])
        vector(x, weight, y)
        check(y, x, weight, dtype)


@pytest.mark.parametrize(("shape", "before", "after"), [((5, 64), 0, 0), ((5, 1, 64), 0, 1), ((1, 5, 64), 1, 0)])
def test_where_the_rows_are(shape: tuple[int, ...], before: int, after: int) -> None:
    rng = np.random.default_rng(0)
    matrix = compile_function(group4.matrix_kernel(64, before, after, "float16", "float16", "float32"))
    words, scales, weight = packed(32, 64, np.dtype(np.float16), rng)
    x = rng.standard_normal(shape).astype(np.float16)
    y = np.zeros((*shape[:-1], 32), np.float32)
    matrix(x, words, scales, y)
    check(y, x, weight, "float32")


def test_a_row_does_not_depend_on_its_neighbours() -> None:
    rng = np.random.default_rng(3)
    matrix = compile_function(dense.matrix_kernel(48, 0, 0, "float32", "float32", "float32"))
    weight = rng.standard_normal((40, 48)).astype(np.float32)
    x = rng.standard_normal((14, 48)).astype(np.float32)
    whole, part = np.zeros((14, 40), np.float32), np.zeros((3, 40), np.float32)
    matrix(x, weight, whole)
    matrix(x[5:8].copy(), weight, part)
    np.testing.assert_array_equal(whole[5:8], part)
