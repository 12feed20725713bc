"""The CPU linear kernels against NumPy, over widths with and without tails, row counts and number types."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmbuild.compiler.kernels.cpu import dense, packed_awq, packed_nk_int8, packed_nk_int16
from llmbuild.compiler.kernels.cpu import packed as packed_kernels
from llmbuild.compiler.kernels.cpu.instructions.avx2 import Avx2
from llmbuild.compiler.kernels.cpu.rounding import Rounding
from llmbuild.quantization.awq import shift
from llmbuild.quantization.scheme import CPU_WORDS, SCHEMES, Scheme
from tests.helpers.primfunc import compile_function

DTYPES = {"float32": np.dtype(np.float32), "float16": np.dtype(np.float16), "bfloat16": np.dtype(ml_dtypes.bfloat16)}
TOLERANCE = {"float32": 4e-6, "float16": 1e-3, "bfloat16": 8e-3}
OUTPUTS = (16, 17, 34, 64)
WIDE = (64, 81, 577)
"""Numbers of outputs for the layouts that have outputs beside each other: a block, one and a part, and a strip and a part."""
ROWS = (1, 2, 3, 5, 6, 7, 13)
Q4, Q3, Q8 = SCHEMES["q4f32_1"], SCHEMES["q3f16_1"], SCHEMES["q8f32_1"]


def packed(
    n: int, k: int, dtype: np.dtype, rng: np.random.Generator, scheme: Scheme = Q4
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Random words, scales and the float32 weights [n, k] that they mean: all values of the packing, scales of either sign, and
    something in the padding of the last group."""
    groups, per_word = -(-k // scheme.group_size), scheme.elements_per_word
    width = groups * scheme.group_size
    values = rng.integers(0, 1 << scheme.bits, (n, width)).astype(np.uint32)
    unit = 8 / (scheme.max_int + 1)
    scales = ((rng.random((n, groups)) + 0.1) * unit / 10 * rng.choice([-1, 1], (n, groups))).astype(dtype)
    words = np.zeros((n, width // per_word), np.uint32)
    for i in range(per_word):
        words |= values[:, i::per_word] << np.uint32(scheme.bits * i)
    weight = (values.astype(np.float32) - scheme.max_int) * np.repeat(
        scales.astype(np.float32), scheme.group_size, axis=1
    )
    if scheme.inputs_first:
        words, scales = np.ascontiguousarray(words.T), np.ascontiguousarray(scales.T)
    return words, scales, weight[:, :k]


def check(got: np.ndarray, x: np.ndarray, weight: np.ndarray, dtype: str) -> None:
    want = x.reshape(-1, x.shape[-1]).astype(np.float64) @ weight.astype(np.float64).T
    error = np.abs(got.reshape(want.shape).astype(np.float64) - want).max() / np.abs(want).max()
    assert error < TOLERANCE[dtype], error


def compiled(planes: int, scheme: Scheme, k: int, dtype: str) -> tuple[Any, Any]:
    """The kernels for a row and for many rows."""
    rounding = Rounding(planes, Avx2()) if planes else None
    return (
        compile_function(packed_kernels.vector_kernel(rounding, scheme, k, 1, dtype, dtype, dtype)),
        compile_function(packed_kernels.matrix_kernel(rounding, scheme, k, 1, 0, dtype, dtype, dtype)),
    )


@pytest.mark.parametrize(
    ("name", "groups", "dtype", "widths"),
    [
        ("q4f32_1", 1, "float32", (32, 64, 96, 320)),
        ("q4f16_1", 1, "float16", (96,)),
        ("q4bf16_1", 1, "bfloat16", (320,)),
        ("q4f32_1", 2, "float32", (64, 192)),
        ("q4f32_1", 4, "float32", (384,)),
        ("q3f16_1", 1, "float32", (40, 64, 120, 320)),
        ("q3f16_1", 1, "float16", (64,)),
        ("q3f16_1", 2, "float32", (80, 200)),
        ("q8f32_1", 1, "float32", (32, 52, 96, 320)),
        ("q8f16_1", 1, "float16", (96,)),
        ("q8f32_1", 1, "bfloat16", (64,)),
        ("q8f32_1", 2, "float32", (64, 192)),
        ("q4f16_0", 1, "float32", (32, 320)),
        ("q4f16_0", 1, "float16", (64,)),
        ("q4bf16_0", 1, "bfloat16", (96,)),
        ("q4f16_0", 2, "float32", (128,)),
        ("q3f16_0", 1, "float32", (40, 64, 200)),
        ("q3f16_0", 1, "float16", (120,)),
    ],
)
def test_packed_weights(name: str, groups: int, dtype: str, widths: tuple[int, ...]) -> None:
    """In both layouts, with groups of four, eight and sixteen words, and inputs that end within a group."""
    scheme = replace(SCHEMES[name], group_size=SCHEMES[name].group_size * groups)
    for k in widths:
        rng = np.random.default_rng(k)
        vector, matrix = compiled(0, scheme, k, dtype)
        for n in WIDE if scheme.inputs_first else OUTPUTS:
            assert packed_kernels.serves(scheme, n)
            words, scales, weight = packed(n, k, DTYPES[dtype], rng, scheme)
            for rows in ROWS:
                x = rng.standard_normal((1, rows, k)).astype(DTYPES[dtype])
                y = np.zeros((1, rows, n), DTYPES[dtype])
                matrix(x, words, scales, y)
                check(y, x, weight, dtype)
            x = x[:, :1].copy()
            y = np.zeros((1, 1, n), DTYPES[dtype])
            vector(x, words, scales, y)
            check(y, x, weight, dtype)


def test_what_no_kernel_takes() -> None:
    """Few outputs, and groups that are no whole vectors of words."""
    assert not packed_kernels.serves(Q4, 15)
    assert not packed_kernels.serves(SCHEMES["q4f16_0"], 63)
    assert not packed_kernels.serves(replace(Q4, group_size=16), 64)
    assert not packed_kernels.serves(replace(Q4, group_size=96), 64)
    assert packed_kernels.serves(replace(SCHEMES["q4f16_0"], group_size=96), 64)
    awq = SCHEMES["q4f16_awq"]
    assert packed_awq.serves(awq, 64, 128)
    assert not any(packed_awq.serves(awq, *layer) for layer in ((56, 128), (68, 128), (64, 192)))


@pytest.mark.parametrize(
    ("group", "dtype", "k"), [(128, "float32", 256), (32, "float32", 352), (128, "float16", 128), (64, "bfloat16", 64)]
)
def test_awq(group: int, dtype: str, k: int) -> None:
    rng = np.random.default_rng(k)
    scheme = replace(SCHEMES["q4f16_awq"], group_size=group)
    vector = compile_function(packed_awq.vector_kernel(scheme, k, 1, dtype, dtype, dtype))
    matrix = compile_function(packed_awq.matrix_kernel(scheme, k, 1, 0, dtype, dtype, dtype))

    def words(numbers: np.ndarray) -> np.ndarray:
        found = np.zeros((numbers.shape[0], numbers.shape[1] // 8), np.uint32)
        for place in range(8):
            found |= numbers[:, place::8] << np.uint32(shift(place))
        return found

    for n in (64, 72, 584, packed_awq.STRIP * packed_awq.COLUMNS + 72):
        q, z = (rng.integers(0, 16, (size, n)).astype(np.uint32) for size in (k, k // group))
        s = ((rng.random((k // group, n)) * 0.1 + 0.01) * rng.choice([-1, 1], (k // group, n))).astype(DTYPES[dtype])
        wide_z, wide_s = (np.repeat(one.astype(np.float32), group, 0) for one in (z, s))
        weight = ((q.astype(np.float32) - wide_z) * wide_s).T
        for rows in ROWS:
            x = rng.standard_normal((1, rows, k)).astype(DTYPES[dtype])
            y = np.zeros((1, rows, n), DTYPES[dtype])
            matrix(x, words(q), words(z), s, y)
            check(y, x, weight, dtype)
        x = x[:, :1].copy()
        y = np.zeros((1, 1, n), DTYPES[dtype])
        vector(x, words(q), words(z), s, y)
        check(y, x, weight, dtype)


def rounded(x: np.ndarray, planes: int, group: int) -> np.ndarray:
    """What one or two planes of bytes hold of x [..., k], in float64; the last group may have fewer elements."""
    k = x.shape[-1]
    whole = np.zeros((*x.shape[:-1], -(-k // group) * group), np.float32)
    whole[..., :k] = x
    groups = whole.reshape(-1, group)
    largest = np.abs(groups).max(1, keepdims=True)
    inverse = np.divide(np.float32(127), largest, out=np.zeros_like(largest), where=largest > 1e-35)
    parts = groups * inverse
    high = np.rint(parts)
    low = np.rint((parts - high) * np.float32(128))
    assert np.abs(high).max() <= 127 and np.abs(low).max() <= 64
    if planes == 1:
        held = high.astype(np.float64) * largest * np.float32(1 / 127)
    else:
        held = (high.astype(np.float64) * 128 + low) * largest * np.float32(1 / (127 * 128))
    error = np.abs(held - groups).max(1)
    assert (error <= np.abs(groups).max(1) / (32_000 if planes == 2 else 250)).all()
    return held.reshape(whole.shape)[..., :k]


@pytest.mark.parametrize(
    ("scheme", "planes", "dtype", "k"),
    [
        (Q4, 2, "float32", 192),
        (Q4, 2, "float16", 64),
        (Q4, 2, "bfloat16", 128),
        (Q4, 1, "float32", 320),
        # By pairs of 16 bits: a width that is no multiple of two groups, with vectors of words that overlap.
        (Q4, 2, "float32", 96),
        (Q4, 1, "float32", 160),
        (Q3, 2, "float32", 320),
        (Q3, 2, "float16", 200),
        (Q3, 1, "float32", 64),
        (Q3, 2, "bfloat16", 116),
        (Q8, 2, "float32", 96),
        (Q8, 2, "float16", 52),
        (Q8, 1, "bfloat16", 320),
        (replace(Q8, group_size=16), 2, "float32", 80),
        (replace(Q4, group_size=128), 2, "float32", 320),
    ],
)
def test_rows_in_small_whole_numbers(scheme: Scheme, planes: int, dtype: str, k: int) -> None:
    """The products are exact of what x is rounded to, which is as close as the module promises."""
    rng = np.random.default_rng(k)
    made = packed_kernels.rounded(Avx2(), scheme, k)
    assert made is not None
    assert (made is packed_nk_int8.product) == (scheme is Q4 and k % 64 == 0)
    product = made(Rounding(planes, Avx2()))
    vector, matrix = compiled(planes, scheme, k, dtype)
    for n in OUTPUTS:
        words, scales, weight = packed(n, k, DTYPES[dtype], rng, scheme)
        for rows in ROWS:
            x = (rng.standard_normal((1, rows, k)) * 10.0 ** rng.integers(-4, 4, (1, rows, k))).astype(DTYPES[dtype])
            x[0, 0, 40:80] = 0
            held = rounded(x, planes, CPU_WORDS * scheme.elements_per_word)
            many = rows > product.limit and not (planes == 1 and made is packed_nk_int8.product)
            y = np.zeros((1, rows, n), DTYPES[dtype])
            matrix(x, words, scales, y)
            check(y, x if many else held, weight, dtype)
        x, held = x[:, :1].copy(), held[:, :1]
        y = np.zeros((1, 1, n), DTYPES[dtype])
        vector(x, words, scales, y)
        check(y, held, weight, dtype)


@functools.cache
def eight_bits(planes: int, k: int) -> tuple[Any, Any]:
    return compiled(planes, Q8, k, "float32")


@pytest.mark.parametrize("planes", [0, 2])
@settings(max_examples=15, deadline=None)
@given(
    n=st.integers(16, 90),
    rows=st.one_of(st.integers(1, 8), st.integers(1, 600)),
    k=st.sampled_from([52, 260]),
    seed=st.integers(0, 99),
)
def test_eight_bits(planes: int, n: int, rows: int, k: int, seed: int) -> None:
    """Every value of a byte, scales of either sign, any number of outputs and of rows, and inputs that end within a group."""
    rng = np.random.default_rng(seed)
    words, scales, weight = packed(n, k, np.dtype(np.float32), rng, Q8)
    if k > 256:
        numbers = words.view(np.uint8)
        assert set(numbers[:, :k].flat) == set(range(256))
    vector, matrix = eight_bits(planes, k)
    x = rng.standard_normal((1, rows, k)).astype(np.float32)
    held = rounded(x, planes, 16) if planes and rows <= packed_nk_int16.GEMV_LIMIT else x
    y = np.zeros((1, rows, n), np.float32)
    matrix(x, words, scales, y)
    check(y, held, weight, "float32")
    y = np.zeros((1, 1, n), np.float32)
    vector(x[:, :1].copy(), words, scales, y)
    check(y, (rounded(x, planes, 16) if planes else x)[:, :1], weight, "float32")


def test_what_is_not_rounded() -> None:
    """Inputs of fewer words than a vector, groups of no whole vectors, and layouts that have outputs beside each other."""
    assert packed_kernels.rounded(Avx2(), Q4, 32) is None
    assert packed_kernels.rounded(Avx2(), replace(Q4, group_size=96), 384) is None
    assert packed_kernels.rounded(Avx2(), SCHEMES["q4f16_0"], 256) is None


@pytest.mark.parametrize("scheme", [Q4, Q3, Q8], ids=["4 bits", "3 bits", "8 bits"])
@pytest.mark.parametrize("planes", [1, 2])
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_what_is_no_number_stays_none(value: float, planes: int, scheme: Scheme) -> None:
    rng = np.random.default_rng(5)
    vector, _ = compiled(planes, scheme, 128, "float32")
    words, scales, _ = packed(16, 128, np.dtype(np.float32), rng, scheme)
    x = rng.standard_normal((1, 1, 128)).astype(np.float32)
    x[0, 0, 70] = value
    y = np.zeros((1, 1, 16), np.float32)
    vector(x, words, scales, y)
    assert not np.isfinite(y).any()


@pytest.mark.parametrize("scheme", [Q4, Q3, Q8], ids=["4 bits", "3 bits", "8 bits"])
@pytest.mark.parametrize("planes", [1, 2])
def test_the_largest_products_overflow_nothing(planes: int, scheme: Scheme) -> None:
    """The largest weights, and elements whose bytes are the largest: 2,000 of them."""
    k, most = 2000 // scheme.group_size * scheme.group_size, (1 << scheme.bits) - 1
    vector, _ = compiled(planes, scheme, k, "float32")
    words = np.full((16, k // scheme.elements_per_word), 0xFFFFFFFF, np.uint32)
    scales = np.ones((16, k // scheme.group_size), np.float32)
    for sign in (1, -1):
        x = np.full((1, 1, k), sign * np.float32(3), np.float32)
        y = np.zeros((1, 1, 16), np.float32)
        vector(x, words, scales, y)
        np.testing.assert_allclose(y, sign * float(most - scheme.max_int) * 3 * k, rtol=1e-6)


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
    matrix = compile_function(
        packed_kernels.matrix_kernel(None, Q4, 64, before, after, "float16", "float16", "float32")
    )
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
