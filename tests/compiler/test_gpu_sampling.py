"""Sampling on the device, executed by PoCL, against its definition in NumPy."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.opencl import compile_kernel, require

VOCABULARIES = (1, 5, 256, 320, 49_152, 151_936)
EPSILON = 3e-6
"""How far a cumulative sum in float32 may be from that in float64."""

SAMPLES = 60


@pytest.fixture(autouse=True)
def _device() -> None:
    require()


@functools.cache
def kernel(module: str, name: str) -> Callable[..., Counter[str]]:
    import importlib

    return compile_kernel(getattr(importlib.import_module(f"llmbuild.compiler.kernels.gpu.{module}"), name)())


def probabilities(rng: np.random.Generator, rows: int, vocabulary: int) -> np.ndarray:
    """Rows from nearly one token to nearly uniform, with zeros in them."""
    powers = rng.standard_exponential((rows, vocabulary)) ** np.array([[12], [4], [1], [0.2]])[:rows]
    powers[:, rng.random(vocabulary) < 0.2] = 0
    powers[:, vocabulary // 3] += 1e-3
    return (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)


def numbers(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Uniform numbers in [0, 1), the ends among them, and rows to sample from."""
    uniform = rng.random(SAMPLES, np.float32)
    uniform[:2] = 0, np.float32(1 - 2.0**-24)
    return uniform, rng.integers(0, 4, SAMPLES).astype(np.int32)


def is_sample(row: np.ndarray, place: int, point: float) -> bool:
    """Whether the place is where the cumulative sum of the row passes the point, within rounding."""
    cumulative = np.cumsum(row.astype(np.float64))
    before = cumulative[place - 1] if place else 0.0
    return bool(row[place] > 0 and before <= point + EPSILON and cumulative[place] >= point - EPSILON)


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_multinomial_from_uniform(vocabulary: int) -> None:
    rng = np.random.default_rng(vocabulary)
    probs, (uniform, rows) = probabilities(rng, 4, vocabulary), numbers(rng)
    tokens = np.full(SAMPLES, -1, np.int32)
    kernel("sampling", "multinomial_kernel")(probs, uniform, rows, tokens)
    for row, token, point in zip(rows, tokens, uniform, strict=True):
        assert is_sample(probs[row], token, point)


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_sample_with_top_p(vocabulary: int) -> None:
    rng = np.random.default_rng(vocabulary)
    probs, (uniform, rows) = probabilities(rng, 4, vocabulary), numbers(rng)
    indices = np.argsort(-probs, axis=1, kind="stable").astype(np.int32)
    ordered = np.take_along_axis(probs, indices.astype(np.int64), 1)
    ranks = np.argsort(indices, axis=1)
    for top_p in ([1, 0.95, 0.5, 0.1], [1e-5, 1e-5, 1e-5, 0]):
        tokens = np.full(SAMPLES, -1, np.int32)
        limits = np.array(top_p, np.float32)
        kernel("sampling", "top_p_kernel")(ordered, indices, uniform, rows, limits, tokens)
        for row, token, point in zip(rows, tokens, uniform, strict=True):
            cumulative = np.cumsum(ordered[row].astype(np.float64))
            ends = np.searchsorted(cumulative, [limits[row] - EPSILON, limits[row] + EPSILON]).clip(max=vocabulary - 1)
            assert any(is_sample(ordered[row], ranks[row, token], point * cumulative[end]) for end in ends)
            if limits[row] <= 1e-5:
                assert token == indices[row, 0]


def test_samples_are_distributed_as_the_probabilities() -> None:
    probs = np.array([[0.5, 0, 0.125, 0.25, 0.125]], np.float32)
    uniform = ((np.arange(1000) + 0.5) / 1000).astype(np.float32)
    rows, tokens = np.zeros(1000, np.int32), np.zeros(1000, np.int32)
    kernel("sampling", "multinomial_kernel")(probs, uniform, rows, tokens)
    assert np.bincount(tokens, minlength=5).tolist() == [500, 0, 125, 250, 125]
    indices = np.array([[0, 3, 2, 4, 1]], np.int32)
    kernel("sampling", "top_p_kernel")(probs[:, indices[0]], indices, uniform, rows, np.float32([0.75]), tokens)
    counts = np.bincount(tokens, minlength=5)
    assert counts[[1, 2, 4]].tolist() == [0, 0, 0] and abs(counts[0] - 667) <= 1


def test_a_row_of_zeros_or_nan_gives_a_token_all_the_same() -> None:
    probs = np.zeros((2, 300), np.float32)
    probs[1] = np.nan
    indices = np.tile(np.arange(300, dtype=np.int32), (2, 1))
    uniform, rows, tokens = np.float32([0, 0.5, 0.9]), np.int32([0, 0, 1]), np.full(3, -1, np.int32)
    kernel("sampling", "multinomial_kernel")(probs, uniform, rows, tokens)
    assert tokens.tolist() == [0, 0, 0]
    kernel("sampling", "top_p_kernel")(probs, indices, uniform, rows, np.float32([0.9, 0.9]), tokens)
    assert tokens.tolist() == [0, 0, 0]


@pytest.mark.parametrize(("samples", "positions"), [(4, 7), (600, 3), (1, 0)])
def test_take_probs(samples: int, positions: int) -> None:
    rng = np.random.default_rng(samples)
    probs = probabilities(rng, 4, 320)
    indices = np.argsort(-probs, axis=1, kind="stable").astype(np.int32)
    rows, tokens = rng.integers(0, 4, samples).astype(np.int32), rng.integers(0, 320, samples).astype(np.int32)
    offsets = rng.integers(0, 4 * 320, positions).astype(np.int32)
    sampled, top, top_indices = (np.zeros(n, d) for n, d in ((samples, "f4"), (positions, "f4"), (positions, "i4")))
    kernel("sampling", "take_probs_kernel")(probs, indices, rows, tokens, offsets, sampled, top, top_indices)
    np.testing.assert_array_equal(sampled, probs[rows, tokens])
    np.testing.assert_array_equal(top_indices, indices.reshape(-1)[offsets])
    np.testing.assert_array_equal(top, probs[offsets // 320, top_indices])


def renormalize(probs: np.ndarray, top_p: np.ndarray, guesses: np.ndarray) -> np.ndarray:
    pivot, kept, result = np.zeros_like(top_p), np.zeros_like(top_p), np.full_like(probs, np.nan)
    kernel("renormalize", "pivot_kernel")(probs, top_p, guesses, pivot, kept)
    kernel("renormalize", "renormalize_kernel")(probs, pivot, kept, result)
    return result


def runtime_guesses(top_p: np.ndarray) -> np.ndarray:
    """The pivots that MLC's runtime starts from."""
    rest = 1 - top_p
    wide = np.stack([np.minimum(rest, 0.5), np.full_like(rest, 0.02), np.full_like(rest, 0.01)], axis=1)
    return np.where(rest[:, None] >= 0.02, wide, rest[:, None] / np.array([1, 2, 4], np.float32)).astype(np.float32)


def check_nucleus(probs: np.ndarray, top_p: np.ndarray, result: np.ndarray) -> None:
    for row, limit, got in zip(probs, top_p, result, strict=True):
        kept = got > 0
        mass = row[kept].astype(np.float64).sum()
        least = row[kept].min()
        # Enough is kept, without the least probable ones it would not be, and of equals all are kept.
        assert mass >= min(limit, row.sum(dtype=np.float64)) - EPSILON
        assert mass - row[row == least].astype(np.float64).sum() < limit + EPSILON
        np.testing.assert_array_equal(kept, (row >= least) & (row > 0))
        np.testing.assert_allclose(got[kept], row[kept] / mass, rtol=2e-5)


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_renormalize_by_top_p(vocabulary: int) -> None:
    probs = probabilities(np.random.default_rng(vocabulary), 4, vocabulary)
    for top_p in (np.float32([0.95, 0.5, 0.999, 0.1]), np.float32([1e-5, 1, 0.3, 0.9])):
        result = renormalize(probs, top_p, runtime_guesses(top_p))
        check_nucleus(probs, top_p, result)
        for guesses in (np.zeros((4, 3), np.float32), np.float32([[1, 0.5, 0.1]] * 4), np.float32([[1e-4] * 3] * 4)):
            np.testing.assert_array_equal(renormalize(probs, top_p, guesses), result)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.integers(0, 6), min_size=1, max_size=600).filter(any),
    st.floats(0.015625, 1, width=32),
    st.lists(st.floats(0, 2, width=32), min_size=3, max_size=3),
)
def test_renormalize_with_ties_and_any_guess(weights: list[int], top_p: float, guesses: list[float]) -> None:
    probs = np.float32([weights]) / np.float32(sum(weights))
    check_nucleus(probs, np.float32([top_p]), renormalize(probs, np.float32([top_p]), np.float32([guesses])))


def verify(
    draft: np.ndarray,
    tokens: np.ndarray,
    model: np.ndarray,
    child: np.ndarray,
    sibling: np.ndarray,
    uniform: np.ndarray,
) -> int:
    """The definition: the last accepted node of the tree under node 0; `model` is changed in place."""
    parent, node = 0, int(child[0])
    while node >= 0:
        rest = np.maximum(model[parent] - draft[node], 0)
        likely = model[parent, tokens[node]] >= uniform[node] * draft[node, tokens[node]]
        if likely or rest.sum() < 1e-7:
            parent, node = node, int(child[node])
        else:
            model[parent] = rest / rest.sum()
            node = int(sibling[node])
    return parent


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(2, 9), min_size=1, max_size=4), st.sampled_from([5, 700]), st.integers(0, 2**32 - 1))
def test_verify_draft_tokens(sizes: list[int], vocabulary: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    nodes = sum(sizes)
    draft, model = (rng.dirichlet(np.full(vocabulary, 0.3), nodes).astype(np.float32) for _ in range(2))
    same = rng.random(nodes) < 0.2
    tokens = rng.integers(0, vocabulary, nodes).astype(np.int32)
    uniform = rng.random(nodes, np.float32)
    child, sibling = np.full(nodes, -1, np.int32), np.full(nodes, -1, np.int32)
    roots = np.cumsum([0, *sizes[:-1]]).astype(np.int32)
    for root, size in zip(roots, sizes, strict=True):
        for node in range(root + 1, root + size):
            parent = rng.integers(root, node)
            if same[node]:
                draft[node] = model[parent]
            if child[parent] < 0:
                child[parent] = node
            else:
                last = child[parent]
                while sibling[last] >= 0:
                    last = sibling[last]
                sibling[last] = node
    want, ends = model.copy(), []
    for root, size in zip(roots, sizes, strict=True):
        part = slice(root, root + size)
        moved = [np.where(links[part] < 0, -1, links[part] - root) for links in (child, sibling)]
        ends.append(root + verify(draft[part], tokens[part], want[part], *moved, uniform[part]))
    kernel("verify", "verify_kernel")(draft, tokens, model, child, sibling, uniform, roots)
    assert roots.tolist() == ends
    np.testing.assert_allclose(model, want, rtol=1e-4, atol=1e-7)
