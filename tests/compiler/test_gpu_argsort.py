"""The sort of our own, executed by PoCL: order, ties, every kind of number, and how many launches it takes."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.opencl import compile_kernel, require

INPUTS: dict[str, Callable[[np.random.Generator, tuple[int, int]], np.ndarray]] = {
    "probabilities": lambda rng, shape: rng.dirichlet(np.full(shape[1], 0.1), shape[0]),
    "both signs": lambda rng, shape: rng.standard_normal(shape),
    "ties": lambda rng, shape: rng.integers(-3, 4, shape),
    "constant": lambda rng, shape: np.full(shape, 0.25),
    "ascending": lambda rng, shape: np.tile(np.arange(shape[1]), (shape[0], 1)),
    "descending": lambda rng, shape: np.tile(-np.arange(shape[1]), (shape[0], 1)),
    "one token": lambda rng, shape: np.eye(*shape, shape[1] // 2),
}


@functools.cache
def kernel() -> Callable[..., Counter[str]]:
    from llmbuild.compiler.kernels.gpu.argsort import argsort_kernel

    return compile_kernel(argsort_kernel())


def sort(source: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """The sorted values, the indices, and the number of launches."""
    require()
    # What a buffer held before must not matter.
    values, spare = np.full_like(source, np.nan), np.full_like(source, np.nan)
    indices, spare_indices = np.full(source.shape, -7, np.int32), np.full(source.shape, -7, np.int32)
    launches = kernel()(source, values, indices, spare, spare_indices)
    return values, indices, sum(launches.values())


def check(source: np.ndarray) -> int:
    values, indices, launches = sort(source)
    np.testing.assert_array_equal(indices, np.argsort(-source, axis=1, kind="stable"))
    np.testing.assert_array_equal(values, np.take_along_axis(source, indices.astype(np.int64), 1))
    return launches


@pytest.mark.parametrize("kind", INPUTS)
def test_real_vocabularies(kind: str) -> None:
    rng = np.random.default_rng(0)
    for batch, vocabulary, launches in ((4, 320, 1), (2, 49_152, 7), (1, 151_936, 9)):
        assert check(INPUTS[kind](rng, (batch, vocabulary)).astype(np.float32)) == launches


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 4), st.integers(1, 9_000), st.sampled_from([2, 5, 1000, 10**6]), st.integers(0, 2**32 - 1))
def test_any_size(batch: int, columns: int, distinct: int, seed: int) -> None:
    check(np.random.default_rng(seed).integers(-distinct, distinct, (batch, columns)).astype(np.float32))


def test_zeros_are_equal_and_infinities_are_numbers() -> None:
    row = np.array([[0.0, -0.0, 1e-45, np.inf, -np.inf, -1e-45, np.finfo(np.float32).max, -0.0, 0.0]], np.float32)
    check(np.tile(row, (2, 300)))


def test_the_indices_are_a_permutation_whatever_the_bits() -> None:
    """A memory fault is the alternative: places are computed from comparisons."""
    bits = np.random.default_rng(1).integers(0, 2**32, (2, 5000), dtype=np.uint32)
    bits[:, :1000] = 0xFFFFFFFF
    _, indices, _ = sort(bits.view(np.float32))
    for row in indices:
        np.testing.assert_array_equal(np.sort(row), np.arange(5000))
