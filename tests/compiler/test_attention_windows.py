"""The CPU attention kernels with a window by positions and a soft cap, against NumPy."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest

from llmbuild.compiler.kernels.cpu.attention_decode import decode_kernel
from llmbuild.compiler.kernels.cpu.attention_prefill import paged_kernel, ragged_kernel
from llmbuild.compiler.kernels.scores import capped
from tests.compiler.test_attention import Cache, attention, check, operands
from tests.helpers.primfunc import compile_function

SHAPE = (4, 2, 32, "float32")
SCALE = 32**-0.5
EVERY = [(20, 2.0), (16, None), (33, 1.0), (None, 0.5)]
FEW = [EVERY[0], *(pytest.param(*rest, marks=pytest.mark.full) for rest in EVERY[1:])]
LOWEST = np.float32(-5e4)


@cache
def kernel(name: str, window: int | None, softcap: float | None) -> Any:
    make = {"decode": decode_kernel, "paged": paged_kernel}
    if name == "ragged":
        return compile_function(ragged_kernel(*SHAPE, None, window, softcap))
    return compile_function(make[name](*SHAPE, False, None, window, softcap))


def visible(positions: np.ndarray, start: int, count: int, window: int | None) -> np.ndarray:
    """[queries, keys]: keys at start, start + 1, …; no key is newer than the query in these tests of the cache."""
    at = start + np.arange(count)[None]
    return at <= positions[:, None] if window is None else at > positions[:, None] - window


def expect(
    found: np.ndarray, lse: np.ndarray, q: np.ndarray, k: np.ndarray, v: np.ndarray, mask: np.ndarray, cap: float | None
) -> None:
    """Rows that see a key are attention's; others are 0 and have the lowest log-sum-exp."""
    any_key = mask.any(axis=1)
    np.testing.assert_array_equal(found[~any_key], 0)
    np.testing.assert_array_equal(lse[~any_key], LOWEST)
    if any_key.any():
        check(found[any_key], lse[any_key], attention(q[any_key], k, v, mask[any_key], cap), "float32")


@pytest.mark.parametrize(("window", "cap"), FEW)
def test_decode(window: int | None, cap: float | None) -> None:
    counts = [1, 15, 20, 33, 100, 300, 40, 64]
    starts = np.array([0, 3, 0, 9, 0, 50, 7, 0], np.int32)
    # The seventh query is so far from its block of keys that it sees one of them, the eighth sees none.
    positions = starts + np.array(counts, np.int32) - 1
    positions[6:] += [(window or 1) - 1, window or 0]
    held = Cache(SHAPE, counts)
    q, output, lse = operands(SHAPE, len(counts))
    for scale in (SCALE, -SCALE) if window else (SCALE,):
        kernel("decode", window, cap)(
            q, held.pages, held.begins, held.table, held.lengths, starts, positions, output, lse, 0, 1.0, 1.0, scale
        )
        for b, count in enumerate(counts):
            one = q[b : b + 1].astype(np.float64)
            mask = visible(positions[b : b + 1], starts[b], count, window if scale < 0 else None)
            expect(output[b : b + 1], lse[b : b + 1], one, held.keys[b], held.values[b], mask, cap)


@pytest.mark.full
@pytest.mark.parametrize(("window", "cap"), EVERY)
def test_ragged(window: int | None, cap: float | None) -> None:
    lengths = [1, 20, 50, 21, 130]
    q, output, lse = operands(SHAPE, sum(lengths))
    rng = np.random.default_rng(1)
    k, v = (rng.standard_normal((sum(lengths), 2, 32)).astype(np.float32) for _ in range(2))
    begins = np.cumsum([0, *lengths]).astype(np.int32)
    starts = np.array([0, 3, 0, 9, 600], np.int32)
    positions = np.concatenate([s + np.arange(n) for s, n in zip(starts, lengths, strict=True)]).astype(np.int32)
    for scale in (SCALE, -SCALE) if window else (SCALE,):
        kernel("ragged", window, cap)(q, begins, k, v, begins, positions, starts, output, lse, 1, 0, 1.0, 1.0, scale)
        for b, length in enumerate(lengths):
            rows = slice(*begins[b : b + 2])
            mask = np.tri(length, dtype=bool) & visible(
                positions[rows], starts[b], length, window if scale < 0 else length
            )
            values = (x[rows].astype(np.float64) for x in (q, k, v))
            expect(output[rows], lse[rows], *values, mask, cap)


@pytest.mark.full
@pytest.mark.parametrize(("window", "cap"), EVERY)
def test_paged(window: int | None, cap: float | None) -> None:
    """Chunks over what the cache holds; in the third the first rows see keys and the others none; the last one's queries
    are a tree of drafts, whose positions do not ascend."""
    queries, counts = [20, 5, 40, 3, 70, 4], [70, 16, 31, 0, 300, 90]
    held = Cache(SHAPE, counts)
    q, output, lse = operands(SHAPE, sum(queries))
    begins = np.cumsum([0, *queries]).astype(np.int32)
    starts = np.array([0, 5, 0, 0, 40, 0], np.int32)
    positions = np.concatenate([s + n + np.arange(m) for s, n, m in zip(starts, counts, queries, strict=True)]).astype(
        np.int32
    )
    positions[-4:] = [100, 90, 91, 90]
    for scale in (SCALE, -SCALE) if window else (SCALE,):
        kernel("paged", window, cap)(
            q, begins, held.pages, held.begins, held.table, held.lengths, starts, positions, output, lse,
            0, 0, 1.0, 1.0, scale,
        )  # fmt: skip
        for b, count in enumerate(counts):
            rows = slice(*begins[b : b + 2])
            mask = visible(positions[rows], starts[b], count, window if scale < 0 else None)
            expect(output[rows], lse[rows], q[rows].astype(np.float64), held.keys[b], held.values[b], mask, cap)


def test_the_cap_is_exact_to_a_few_units_in_the_last_place() -> None:
    from tvm.script import tirx as T

    @T.prim_func(private=True, s_tir=True)
    def cap(x: T.Buffer((4096,), "float32"), y: T.Buffer((4096,), "float32")) -> None:
        T.func_attr({"tirx.is_scheduled": True})
        for i in T.serial(4096):
            y[i] = capped(x[i], 50.0)

    x = np.concatenate([np.linspace(-900, 900, 4000), [0, 1e-30, -1e-6, 1e4, -1e30, 3e38], np.ones(90)]).astype(
        np.float32
    )
    y = np.zeros_like(x)
    compile_function(cap)(x, y)
    unit = 50 / np.log(2)
    np.testing.assert_allclose(y, unit * np.tanh(x.astype(np.float64) / unit), rtol=1e-6)
    assert np.abs(y).max() <= np.float32(unit)
