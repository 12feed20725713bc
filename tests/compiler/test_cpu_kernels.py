"""The CPU linear kernels against NumPy, over widths with and without tails, row counts and number types."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from llmbuild.compiler.kernels.cpu import dense, group4, group4_int8
from tests.helpers.primfunc import compile_function

DTYPES = {"float32": np.dtype(np.float32), "float16": np.dtype(np.float16), "bfloat16": np.dtype(ml_dtypes.bfloat16)}
TOLERANCE = {"float32": 4e-6, "float16": 1e-3, "bfloat16": 8e-3}
OUTPUTS = (16, 17, 34, 64)
ROWS = (1, 2, 3, 5, 6, 7, 13)


def packed(n: int, k: int, dtype: np.dtype, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Random q [n, k/8], s [n, k/32] and the float32 weights they mean: all values of 4 bits, scales of either sign."""
    values = rng.integers(0, 16, (n, k)).astype(np.uint32)
    scales = ((rng.random((n, k // 32)) * 0.1 + 0.01) * rng.choice([-1, 1], (n, k // 32))).astype(dtype)
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


def rounded(x: np.ndarray, planes: int) -> np.ndarray:
    """What one or two planes of bytes hold of x [..., k], in float64."""
    groups = x.astype(np.float32).reshape(-1, 32)
    largest = np.abs(groups).max(1, keepdims=True)
    inverse = np.divide(np.float32(127), largest, out=np.zeros_like(largest), where=largest > 1e-35)
    parts = groups * inverse
    high = np.rint(parts)
    low = np.rint((parts - high) * np.float32(128))
    assert np.abs(high).max() <= 127 and np.abs(low).max() <= 64
    if planes == 1:
        return (high.astype(np.float64) * largest * np.float32(1 / 127)).reshape(x.shape)
    return ((high.astype(np.float64) * 128 + low) * largest * np.float32(1 / (127 * 128))).reshape(x.shape)


@pytest.mark.parametrize(
    ("planes", "dtype", "k"), [(2, "float32", 192), (2, "float16", 64), (2, "bfloat16", 128), (1, "float32", 320)]
)
def test_group4_by_products_of_bytes(planes: int, dtype: str, k: int) -> None:
    """The products are exact of what x is rounded to, which is as close as the module promises."""
    rng = np.random.default_rng(k)
    vector = compile_function(group4_int8.vector_kernel(planes, k, 1, dtype, dtype, dtype))
    matrix = compile_function(group4_int8.matrix_kernel(planes, k, 1, 0, dtype, dtype, dtype))
    for n in OUTPUTS:
        words, scales, weight = packed(n, k, DTYPES[dtype], rng)
        for rows in ROWS:
            x = (rng.standard_normal((1, rows, k)) * 10.0 ** rng.integers(-4, 4, (1, rows, k))).astype(DTYPES[dtype])
            x[0, 0, 32:64] = 0
            held = rounded(x, planes)
            groups = x.astype(np.float64).reshape(-1, 32)
            error = np.abs(held.reshape(-1, 32) - groups).max(1)
            assert (error <= np.abs(groups).max(1) / (32_000 if planes == 2 else 250)).all()
            y = np.zeros((1, rows, n), DTYPES[dtype])
            matrix(x, words, scales, y)
            check(y, held if planes == 1 or rows <= group4_int8.GEMV_LIMIT else x, weight, dtype)
        x, held = x[:, :1].copy(), held[:, :1]
        y = np.zeros((1, 1, n), DTYPES[dtype])
        vector(x, words, scales, y)
        check(y, held, weight, dtype)


@pytest.mark.parametrize("planes", [1, 2])
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_what_is_no_number_stays_none(value: float, planes: int) -> None:
    rng = np.random.default_rng(5)
    vector = compile_function(group4_int8.vector_kernel(planes, 128, 0, "float32", "float32", "float32"))
    words, scales, _ = packed(16, 128, np.dtype(np.float32), rng)
    x = rng.standard_normal((1, 128)).astype(np.float32)
    x[0, 70] = value
    y = np.zeros((1, 16), np.float32)
    vector(x, words, scales, y)
    assert not np.isfinite(y).any()


@pytest.mark.parametrize("planes", [1, 2])
def test_the_largest_products_overflow_nothing(planes: int) -> None:
    """Weights of 15, and elements whose bytes are the largest: 2,000 of them."""
    k = 2048
    vector = compile_function(group4_int8.vector_kernel(planes, k, 0, "float32", "float32", "float32"))
    words = np.full((16, k // 8), 0xFFFFFFFF, np.uint32)
    scales = np.ones((16, k // 32), np.float32)
    for sign in (1, -1):
        x = np.full((1, k), sign * np.float32(3), np.float32)
        y = np.zeros((1, 16), np.float32)
        vector(x, words, scales, y)
        np.testing.assert_allclose(y, sign * 8.0 * 3 * k, rtol=1e-6)


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
