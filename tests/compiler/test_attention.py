"""The CPU attention kernels against NumPy: head groups, pages and their borders, several sequences, windows with sinks."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from llmbuild.compiler.kernels.cpu.attention_decode import decode_kernel
from llmbuild.compiler.kernels.cpu.attention_prefill import paged_kernel, ragged_kernel
from llmbuild.compiler.kernels.cpu.kv_cache import replacements
from llmbuild.models.frequencies import make_rope
from llmbuild.models.kv_cache import KVCacheLayout
from tests.helpers.primfunc import compile_function

THETA = 10000.0
SHAPES = [(9, 3, 64, "float32"), (2, 2, 128, "float32"), (4, 1, 32, "float32"), (4, 2, 80, "float16")]
TOGETHER = [(16, 8, 64, "float32"), (32, 2, 32, "float16")]
"""Shapes whose heads are computed by twos and by fours in decode."""
TOLERANCE = {"float32": 1e-5, "float16": 3e-3}


@cache
def kernel(name: str, shape: tuple[Any, ...], turns: bool, *rest: Any) -> Any:
    make = {"decode": decode_kernel, "paged": paged_kernel, "ragged": ragged_kernel}[name]
    return compile_function(make(*shape, *rest, {} if turns else None))


def rotated(x: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """RoPE of x [tokens, heads, dim], halves paired."""
    half = x.shape[-1] // 2
    angle = positions[:, None, None] * THETA ** (-np.arange(half) / half)
    c, s, a, b = np.cos(angle), np.sin(angle), x[..., :half], x[..., half:]
    return np.concatenate([a * c - b * s, b * c + a * s], axis=-1)


def attention(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, mask: np.ndarray, cap: float | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Outputs [tokens, heads, dim] and log-sum-exp to the base 2 [tokens, heads]; mask [tokens, keys]."""
    group = q.shape[1] // k.shape[1]
    k, v = np.repeat(k, group, axis=1), np.repeat(v, group, axis=1)
    scores = np.einsum("qhd,khd->qhk", q, k) / np.sqrt(q.shape[-1])
    scores = scores if cap is None else cap * np.tanh(scores / cap)
    scores = np.where(mask[:, None, :], scores, -np.inf)
    top = scores.max(axis=-1, keepdims=True)
    powers = np.exp(scores - top)
    total = powers.sum(axis=-1)
    return np.einsum("qhk,khd->qhd", powers, v) / total[..., None], (top[..., 0] + np.log(total)) / np.log(2)


class Cache:
    """Pages with sequences of random keys and values in them; what no sequence uses is NaN."""

    def __init__(self, shape: tuple[Any, ...], counts: list[int], sliding: list[tuple[int, int]] | None = None) -> None:
        """`sliding`: offset and sinks of each sequence; `counts` are the positions stored in all pages."""
        _, kv_heads, dim, dtype = shape
        rng = np.random.default_rng(5)
        pages_of = [-(-count // 16) for count in counts]
        self.begins = np.cumsum([0, *pages_of]).astype(np.int32)
        self.table = rng.permutation(sum(pages_of) + 3)[: sum(pages_of)].astype(np.int32)
        self.pages = np.full((sum(pages_of) + 3, 2, kv_heads, 16, dim), np.nan, dtype)
        self.keys, self.values = [], []
        for sequence, count in enumerate(counts):
            k, v = (rng.standard_normal((count, kv_heads, dim)).astype(dtype) for _ in range(2))
            for position in range(count):
                page = self.table[self.begins[sequence] + position // 16]
                self.pages[page, 0, :, position % 16], self.pages[page, 1, :, position % 16] = k[position], v[position]
            seen = np.arange(count)
            if sliding:
                offset, sinks = sliding[sequence]
                seen = np.concatenate([seen[:sinks], seen[offset:]])
            self.keys.append(k[seen].astype(np.float64))
            self.values.append(v[seen].astype(np.float64))
        last = [count - (pages - 1) * 16 if count else 0 for count, pages in zip(counts, pages_of, strict=True)]
        self.lengths = np.array(last, np.int32)
        if sliding:
            self.lengths = np.array([last, [o for o, _ in sliding], [s for _, s in sliding]], np.int32)


def check(found: np.ndarray, lse: np.ndarray, wanted: tuple[np.ndarray, np.ndarray], dtype: str) -> None:
    np.testing.assert_allclose(found.astype(np.float64), wanted[0], atol=TOLERANCE[dtype])
    np.testing.assert_allclose(lse, wanted[1], atol=TOLERANCE[dtype])


def operands(shape: tuple[Any, ...], tokens: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    heads, _, dim, dtype = shape
    q = np.random.default_rng(tokens).standard_normal((tokens, heads, dim)).astype(dtype)
    return q, np.zeros_like(q), np.zeros((tokens, heads), np.float32)


@pytest.mark.parametrize("inline", [0, 1])
@pytest.mark.parametrize("shape", [*SHAPES, *TOGETHER])
def test_decode(shape: tuple[Any, ...], inline: int) -> None:
    counts = [1, 15, 16, 17, 100, 300]
    held = Cache(shape, counts)
    q, output, lse = operands(shape, len(counts))
    positions = np.array(counts, np.int32)
    starts = np.arange(len(counts), dtype=np.int32)
    kernel("decode", shape, bool(inline), False)(
        q, held.pages, held.begins, held.table, held.lengths, starts, positions, output, lse,
        inline, 1.0, THETA, shape[2] ** -0.5,
    )  # fmt: skip
    for b, count in enumerate(counts):
        one, k = q[b : b + 1].astype(np.float64), held.keys[b]
        if inline:
            one, k = rotated(one, positions[b : b + 1]), rotated(k, starts[b] + np.arange(count))
        wanted = attention(one, k, held.values[b], np.ones((1, count), bool))
        check(output[b : b + 1], lse[b : b + 1], wanted, shape[3])


def test_decode_in_a_window_with_sinks() -> None:
    shape = SHAPES[0]
    held = Cache(shape, [90, 40, 33], [(50, 4), (20, 0), (0, 0)])
    q, output, lse = operands(shape, 3)
    positions = np.array([44, 20, 33], np.int32)
    starts = np.zeros(3, np.int32)
    kernel("decode", shape, True, True)(
        q, held.pages, held.begins, held.table, held.lengths, starts, positions, output, lse,
        1, 1.0, THETA, shape[2] ** -0.5,
    )  # fmt: skip
    for b in range(3):
        k = rotated(held.keys[b], np.arange(len(held.keys[b])))
        one = rotated(q[b : b + 1].astype(np.float64), positions[b : b + 1])
        wanted = attention(one, k, held.values[b], np.ones((1, len(k)), bool))
        check(output[b : b + 1], lse[b : b + 1], wanted, shape[3])


@pytest.mark.parametrize("inline", [0, 1])
@pytest.mark.parametrize("shape", SHAPES)
def test_ragged(shape: tuple[Any, ...], inline: int) -> None:
    """Causal attention of sequences over their own keys, one of them with more keys than queries."""
    _, kv_heads, dim, dtype = shape
    queries, keys = [1, 50, 7, 33], [1, 50, 20, 33]
    q, output, lse = operands(shape, sum(queries))
    rng = np.random.default_rng(1)
    k, v = (rng.standard_normal((sum(keys), kv_heads, dim)).astype(dtype) for _ in range(2))
    q_begins, k_begins = (np.cumsum([0, *sizes]).astype(np.int32) for sizes in (queries, keys))
    starts = np.array([0, 3, 0, 9], np.int32)
    positions = np.concatenate([s + np.arange(n) + m - n for s, n, m in zip(starts, queries, keys, strict=True)])
    kernel("ragged", shape, bool(inline))(
        q, q_begins, k, v, k_begins, positions.astype(np.int32), starts, output, lse, 1, inline, 1.0, THETA, dim**-0.5
    )
    for b in range(4):
        rows, others = slice(*q_begins[b : b + 2]), slice(*k_begins[b : b + 2])
        qs, ks = q[rows].astype(np.float64), k[others].astype(np.float64)
        if inline:
            qs, ks = rotated(qs, positions[rows]), rotated(ks, starts[b] + np.arange(keys[b]))
        mask = np.arange(keys[b])[None] < keys[b] - queries[b] + np.arange(queries[b])[:, None] + 1
        check(output[rows], lse[rows], attention(qs, ks, v[others].astype(np.float64), mask), dtype)


@pytest.mark.parametrize("sliding", [False, True])
@pytest.mark.parametrize("shape", [SHAPES[0], SHAPES[3]])
def test_paged(shape: tuple[Any, ...], sliding: bool) -> None:
    """A chunk over what the cache holds: all of it, causal, and nothing at all."""
    queries, counts = [20, 5, 2, 3], [70, 16, 31, 0]
    held = Cache(shape, counts, [(40, 4), (0, 0), (9, 2), (0, 0)] if sliding else None)
    q, output, lse = operands(shape, sum(queries))
    begins = np.cumsum([0, *queries]).astype(np.int32)
    positions, starts = np.arange(sum(queries), dtype=np.int32), np.zeros(4, np.int32)
    for causal in (0, 1) if not sliding else (0,):
        kernel("paged", shape, sliding, sliding)(
            q, begins, held.pages, held.begins, held.table, held.lengths, starts, positions, output, lse,
            causal, int(sliding), 1.0, THETA, shape[2] ** -0.5,
        )  # fmt: skip
        for b in range(3):
            rows, k = slice(*begins[b : b + 2]), held.keys[b]
            qs = q[rows].astype(np.float64)
            if sliding:
                qs, k = rotated(qs, positions[rows]), rotated(k, np.arange(len(k)))
            seen = len(k) - queries[b] + np.arange(queries[b])[:, None] + 1 if causal else len(k)
            check(output[rows], lse[rows], attention(qs, k, held.values[b], np.arange(len(k))[None] < seen), shape[3])
        np.testing.assert_array_equal(output[begins[3] :], 0)
        np.testing.assert_array_equal(lse[begins[3] :], np.float32(-5e4))


def test_what_stays_with_tvm() -> None:
    assert set(replacements(KVCacheLayout(1, 2, 2, 24, "float32", make_rope(THETA, 24)))) == {"fused_rope"}


def test_the_cache_calls_ours() -> None:
    """TVM's kernels with these names are gone from a module, and nothing is added beside them."""
    import tvm

    from llmbuild.compiler.passes.kv_cache import AttachKVCache

    layout = KVCacheLayout(1, 2, 2, 32, "float32", make_rope(THETA, 32))
    target = tvm.target.Target({"kind": "llvm"})
    ours = AttachKVCache(layout, target, replacements)(tvm.IRModule())
    stock = AttachKVCache(layout, target, None)(tvm.IRModule())
    names = {variable.name_hint for variable in ours.get_global_vars()}
    assert names == {variable.name_hint for variable in stock.get_global_vars()}
    changed = {name for name in names if str(ours[name]) != str(stock[name])}
    assert set(replacements(layout)) <= changed

    rolling = AttachKVCache(replace(layout, rolling=True), target, None)(tvm.IRModule())
    more = {variable.name_hint for variable in rolling.get_global_vars()} - names
    assert more == set(replacements(replace(layout, rolling=True))) - set(replacements(layout))
    assert len(more) == 2
