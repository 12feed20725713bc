"""The GPU forms of the softmax, the logit processors and the row moves, executed by PoCL, against NumPy."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.helpers.opencl import compile_kernel, require

LOWEST = np.finfo(np.float32).min


@pytest.fixture(autouse=True)
def _device() -> None:
    require()


@functools.cache
def logits_kernel(name: str) -> Callable[..., Counter[str]]:
    from llmbuild.compiler.kernels.gpu import logits

    return compile_kernel(getattr(logits, name)())


def softmax(logits: np.ndarray, temperature: np.ndarray, active: int | None) -> np.ndarray:
    from llmbuild.compiler.kernels.gpu import softmax as gpu

    chunks = np.zeros((logits.shape[0], -(-logits.shape[2] // gpu.CHUNK)), np.float32)
    largest, total, result = chunks.copy(), chunks.copy(), np.full_like(logits, np.nan)
    compile_kernel(gpu.statistics_kernel(active))(logits, temperature, largest, total)
    compile_kernel(gpu.probabilities_kernel(active))(logits, temperature, largest, total, result)
    return result


@pytest.mark.parametrize(("vocabulary", "active"), [(160, 150), (4096, None), (49_152, 49_152), (151_936, 151_665)])
def test_softmax(vocabulary: int, active: int | None) -> None:
    rng = np.random.default_rng(vocabulary)
    logits = (rng.standard_normal((5, 1, vocabulary)) * 4).astype(np.float32)
    used = active or vocabulary
    logits[0, 0, used - 1] = 40  # The last token that counts is seen.
    logits[:, 0, used:] = 100  # Those beyond are not.
    logits[1, 0, ::2] = LOWEST  # As the mask leaves them.
    logits[3, 0, [3, used - 2]] = logits[4, 0, 0] = 50
    temperature = np.array([1, 0.01, 2.5, 0, 1e-5], np.float32)
    want = np.zeros_like(logits)
    for row in range(3):
        powers = logits[row, 0, :used].astype(np.float64) / temperature[row]
        powers = np.exp(powers - powers.max())
        want[row, 0, :used] = powers / powers.sum()
    want[3, 0, [3, used - 2]] = 0.5
    want[4, 0, 0] = 1
    got = softmax(logits, temperature, active)
    np.testing.assert_allclose(got, want, rtol=2e-5, atol=1e-7)
    np.testing.assert_allclose(got.sum(axis=2), 1, rtol=1e-5)
    assert not got[:, 0, used:].any()


def test_logit_bias() -> None:
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((3, 700)).astype(np.float32)
    places = rng.choice(3 * 700, 600, replace=False)
    rows, tokens = (places // 700).astype(np.int32), (places % 700).astype(np.int32)
    bias = rng.standard_normal(600).astype(np.float32)
    want = logits.copy()
    want[rows, tokens] += bias
    logits_kernel("logit_bias_kernel")(logits, rows, tokens, bias)
    np.testing.assert_array_equal(logits, want)


def test_penalty() -> None:
    rng = np.random.default_rng(1)
    logits = rng.standard_normal((4, 700)).astype(np.float32)
    sequences = np.array([3, 1], np.int32)
    places = rng.choice(2 * 700, 300, replace=False)
    positions, tokens = (places // 700).astype(np.int32), (places % 700).astype(np.int32)
    counts = rng.integers(1, 9, 300).astype(np.int32)
    penalties = np.array([[0.5, 0.25, 2.0], [0, 0.1, 1.3]], np.float32)
    want = logits.copy()
    for position, token, count in zip(positions, tokens, counts, strict=True):
        presence, frequency, repetition = penalties[position]
        value = want[sequences[position], token] - (presence + np.float32(count) * frequency)
        want[sequences[position], token] = value * repetition if value < 0 else value / repetition
    logits_kernel("penalty_kernel")(logits, sequences, positions, tokens, counts, penalties)
    np.testing.assert_allclose(logits, want, rtol=1e-6)


def test_bitmask() -> None:
    rng = np.random.default_rng(2)
    logits = rng.standard_normal((3, 1003)).astype(np.float32)
    mask = rng.integers(-(2**31), 2**31, (3, 32), dtype=np.int64).astype(np.int32)
    listed = np.array([2, 0], np.int32)
    bits = np.unpackbits(mask.view(np.uint8), axis=1, bitorder="little")[:, :1003]
    want = logits.copy()
    want[listed] = np.where(bits[listed] == 1, logits[listed], LOWEST)
    logits_kernel("bitmask_kernel")(logits, listed, mask)
    np.testing.assert_allclose(logits, want, rtol=2e-7)


def test_nothing_listed_changes_nothing() -> None:
    """The grid of an empty list is one block, as TVM's runtimes launch it."""
    none: Any = np.zeros(0, np.int32)
    logits = np.arange(20, dtype=np.float32).reshape(2, 10)
    want = logits.copy()
    logits_kernel("logit_bias_kernel")(logits, none, none, none.astype(np.float32))
    logits_kernel("bitmask_kernel")(logits, none, np.zeros((2, 1), np.int32))
    np.testing.assert_array_equal(logits, want)


def test_row_moves() -> None:
    from llmbuild.compiler.kernels.gpu import row_moves

    rng = np.random.default_rng(3)
    source, target = rng.random((3, 600), np.float32), rng.random((7, 600), np.float32)
    rows = np.array([5, 0, 3], np.int32)
    want = target.copy()
    want[rows] = source
    compile_kernel(row_moves.scatter_kernel("float32"))(source, rows, target)
    np.testing.assert_array_equal(target, want)
    back = np.zeros_like(source)
    compile_kernel(row_moves.gather_kernel("float32"))(target, rows, back)
    np.testing.assert_array_equal(back, source)
