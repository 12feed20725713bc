"""GPU sampling from a row of probabilities by a uniform number, one block a sample.

A thread owns a span of neighbouring tokens.  It sums its span; each thread accumulates the 256 sums in the same order, so
that one's end is exactly the next one's beginning; then the thread whose span holds the wanted point of the cumulative sum
walks through it once more.  So the cumulative sums are never stored, and their rounding error is that of about 850
additions for a vocabulary of 151,936.
"""

from __future__ import annotations

from typing import Any

from tvm.script import tirx as T

from llmbuild.compiler.kernels.gpu.block import THREADS, blocks

BELOW_ONE = 1 - 2.0**-23
"""The wanted point stays below the end of the cumulative sum by this factor, so that there is a token at it."""

SMALLEST = 1e-30
"""The least top_p, so that a nucleus has a token."""


@T.macro
def accumulate(probs, row, vocabulary, sums, span, tx):
    """span = the cumulative sums before and after the span of the thread, and of the whole row."""
    span[2] = T.float32(0)
    for i in T.serial(blocks(vocabulary)):
        if tx * blocks(vocabulary) + i < vocabulary:
            span[2] = span[2] + probs[row, tx * blocks(vocabulary) + i]
    sums[tx] = span[2]
    T.tvm_storage_sync("shared")
    span[2] = T.float32(0)
    for t in T.serial(THREADS):
        if t == tx:
            span[0] = span[2]
        span[2] = span[2] + sums[t]
        if t == tx:
            span[1] = span[2]


@T.macro
def walk(probs, row, vocabulary, before, point, inclusive, own, place, tx):
    """place[0] = the first token of the thread's span whose cumulative sum is above `point` (or also at it), own[0] = that
    sum.  Where rounding hides it, the span's last token with a probability."""
    own[0] = T.float32(0)
    place[0] = T.min(tx * blocks(vocabulary), vocabulary - 1)
    place[1] = 0
    for i in T.serial(blocks(vocabulary)):
        if place[1] == 0 and tx * blocks(vocabulary) + i < vocabulary:
            probability: T.let[T.float32] = probs[row, tx * blocks(vocabulary) + i]
            own[0] = own[0] + probability
            if probability > T.float32(0):
                place[0] = tx * blocks(vocabulary) + i
            if before + own[0] > point or (inclusive and before + own[0] == point):
                place[1] = 1
    own[0] = before + own[0]


def multinomial_kernel() -> Any:
    """(probs[b, v], uniform[n] in [0, 1), rows[n] int32, result[n] int32): the first token of row rows[i] whose cumulative
    probability is above uniform[i]."""

    @T.prim_func(private=True, s_tir=True)
    def multinomial(
        probs_handle: T.handle, uniform_handle: T.handle, rows_handle: T.handle, result_handle: T.handle
    ) -> None:
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
        batch = T.int32()
        vocabulary = T.int32()
        samples = T.int32()
        probs = T.match_buffer(probs_handle, (batch, vocabulary), "float32")
        uniform = T.match_buffer(uniform_handle, (samples,), "float32")
        rows = T.match_buffer(rows_handle, (samples,), "int32")
        result = T.match_buffer(result_handle, (samples,), "int32")
        for bx in T.thread_binding(samples, "blockIdx.x"):
            for tx in T.thread_binding(THREADS, "threadIdx.x"):
                sums = T.alloc_buffer((THREADS,), "float32", scope="shared")
                span = T.alloc_buffer((3,), "float32", scope="local")
                own = T.alloc_buffer((1,), "float32", scope="local")
                place = T.alloc_buffer((2,), "int32", scope="local")
                point = T.alloc_buffer((1,), "float32", scope="local")
                accumulate(probs, rows[bx], vocabulary, sums, span, tx)
                point[0] = T.min(uniform[bx], span[2] * T.float32(BELOW_ONE))
                if span[2] > T.float32(0):
                    if span[0] <= point[0] and point[0] < span[1]:
                        walk(probs, rows[bx], vocabulary, span[0], point[0], False, own, place, tx)
                        result[bx] = place[0]
                elif tx == 0:
                    # A row without probabilities has no answer; token 0 is at least a token.
                    result[bx] = 0

    return multinomial


def top_p_kernel() -> Any:
    """(sorted probs[b, v], sorted indices[b, v] int32, uniform[n] in [0, 1), rows[n] int32, top_p[b], result[n] int32).

    The nucleus of a row is its shortest beginning whose sum is at least top_p (the whole row where none is).  The result is
    the index of the first token whose cumulative probability is above uniform[i] * (the sum of the nucleus).
    """

    @T.prim_func(private=True, s_tir=True)
    def sample_top_p(
        probs_handle: T.handle,
        indices_handle: T.handle,
        uniform_handle: T.handle,
        rows_handle: T.handle,
        top_p_handle: T.handle,
        result_handle: T.handle,
    ) -> None:
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
        batch = T.int32()
        vocabulary = T.int32()
        samples = T.int32()
        probs = T.match_buffer(probs_handle, (batch, vocabulary), "float32")
        indices = T.match_buffer(indices_handle, (batch, vocabulary), "int32")
        uniform = T.match_buffer(uniform_handle, (samples,), "float32")
        rows = T.match_buffer(rows_handle, (samples,), "int32")
        top_p = T.match_buffer(top_p_handle, (batch,), "float32")
        result = T.match_buffer(result_handle, (samples,), "int32")
        for bx in T.thread_binding(samples, "blockIdx.x"):
            for tx in T.thread_binding(THREADS, "threadIdx.x"):
                sums = T.alloc_buffer((THREADS,), "float32", scope="shared")
                span = T.alloc_buffer((3,), "float32", scope="local")
                nucleus = T.alloc_buffer((1,), "float32", scope="shared")
                own = T.alloc_buffer((1,), "float32", scope="local")
                place = T.alloc_buffer((2,), "int32", scope="local")
                point = T.alloc_buffer((1,), "float32", scope="local")
                accumulate(probs, rows[bx], vocabulary, sums, span, tx)
                point[0] = T.max(T.min(top_p[rows[bx]], span[2]), T.float32(SMALLEST))
                if span[0] < point[0] and point[0] <= span[1]:
                    walk(probs, rows[bx], vocabulary, span[0], point[0], True, own, place, tx)
                    nucleus[0] = own[0]
                T.tvm_storage_sync("shared")
                point[0] = T.min(uniform[bx], T.float32(BELOW_ONE)) * nucleus[0]
                if span[2] > T.float32(SMALLEST):
                    if span[0] <= point[0] and point[0] < span[1]:
                        walk(probs, rows[bx], vocabulary, span[0], point[0], False, own, place, tx)
                        result[bx] = indices[rows[bx], place[0]]
                elif tx == 0:
                    result[bx] = indices[rows[bx], 0]

    return sample_top_p


def take_probs_kernel() -> Any:
    """(probs[b, v], sorted indices[b, v] int32, rows[n] int32, tokens[n] int32, offsets[m] int32; sampled[n], top probs[m],
    top indices[m] int32).

    sampled[i] is the probability of tokens[i] in row rows[i]; offsets[j] = row * v + rank selects the token of that rank in
    that row and its probability.
    """

    @T.prim_func(private=True, s_tir=True)
    def take_probs(
        probs_handle: T.handle,
        indices_handle: T.handle,
        rows_handle: T.handle,
        tokens_handle: T.handle,
        offsets_handle: T.handle,
        sampled_handle: T.handle,
        top_probs_handle: T.handle,
        top_indices_handle: T.handle,
    ) -> None:
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
        batch = T.int32()
        vocabulary = T.int32()
        samples = T.int32()
        positions = T.int32()
        probs = T.match_buffer(probs_handle, (batch, vocabulary), "float32")
        indices = T.match_buffer(indices_handle, (batch, vocabulary), "int32")
        rows = T.match_buffer(rows_handle, (samples,), "int32")
        tokens = T.match_buffer(tokens_handle, (samples,), "int32")
        offsets = T.match_buffer(offsets_handle, (positions,), "int32")
        sampled = T.match_buffer(sampled_handle, (samples,), "float32")
        top_probs = T.match_buffer(top_probs_handle, (positions,), "float32")
        top_indices = T.match_buffer(top_indices_handle, (positions,), "int32")
        for bx in T.thread_binding(blocks(T.max(samples, positions)), "blockIdx.x"):
            for tx in T.thread_binding(THREADS, "threadIdx.x"):
                i: T.let[T.int32] = bx * THREADS + tx
                if i < samples:
                    sampled[i] = probs[rows[i], tokens[i]]
                if i < positions:
                    row: T.let[T.int32] = offsets[i] // vocabulary
                    token: T.let[T.int32] = indices[row, offsets[i] % vocabulary]
                    top_indices[i] = token
                    top_probs[i] = probs[row, token]

    return take_probs
