"""GPU renormalization of probabilities to their nucleus, without sorting, in two launches.

The nucleus holds the tokens of at least a pivot: the largest float32 p for which the tokens of at least p have together a
probability of top_p or more.  (Tokens that are equally probable are in it together.)  Non-negative floats compare like their
bits, so the pivot is found by a search over bits: each pass over the row sums the tokens above three pivots, of which the
interval between two neighbours is kept.  Sixteen passes leave one float; the first tries the pivots that the caller guesses.
"""

from __future__ import annotations

from typing import Any

from tvm.script import tirx as T

from llmbuild.compiler.kernels.gpu.block import HALVINGS, THREADS, blocks

GUESSES = 3
"""Pivots a pass, as many as the runtimes guess."""

PASSES = 16
"""One for the guesses; a quarter of 2^30 floats is left after each other one."""

ABOVE_ALL = 1 << 30
"""The bits of 2.0, which no probability reaches."""

CHUNK = 4096
"""Columns that a block of the second kernel writes."""


@T.macro
def sum_each(parts, own, tx):
    """parts[0, :] = the sums over the threads of own[4], which is used up."""
    for step in T.unroll(HALVINGS + 1):
        if step > 0:
            for j in T.unroll(GUESSES + 1):
                own[j] = own[j] + T.if_then_else(
                    tx < T.shift_right(THREADS, step), parts[tx + T.shift_right(THREADS, step), j], T.float32(0)
                )
            T.tvm_storage_sync("shared")
        for j in T.unroll(GUESSES + 1):
            parts[tx, j] = own[j]
        T.tvm_storage_sync("shared")


def pivot_kernel() -> Any:
    """(probs[b, v], top_p[b], guesses[b, 3]; pivot[b], kept[b]): the pivot and the sum of what is at least that.  The guesses
    only save time; the result does not depend on them."""

    @T.prim_func(private=True, s_tir=True)
    def top_p_pivot(
        probs_handle: T.handle,
        top_p_handle: T.handle,
        guesses_handle: T.handle,
        pivot_handle: T.handle,
        kept_handle: T.handle,
    ) -> None:
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
        batch = T.int32()
        vocabulary = T.int32()
        probs = T.match_buffer(probs_handle, (batch, vocabulary), "float32")
        top_p = T.match_buffer(top_p_handle, (batch,), "float32")
        guesses = T.match_buffer(guesses_handle, (batch, GUESSES), "float32")
        pivot = T.match_buffer(pivot_handle, (batch,), "float32")
        kept = T.match_buffer(kept_handle, (batch,), "float32")
        for bx in T.thread_binding(batch, "blockIdx.x"):
            for tx in T.thread_binding(THREADS, "threadIdx.x"):
                parts = T.alloc_buffer((THREADS, GUESSES + 1), "float32", scope="shared")
                own = T.alloc_buffer((GUESSES + 1,), "float32", scope="local")
                bits = T.alloc_buffer((GUESSES + 1,), "int32", scope="local")
                low = T.alloc_buffer((1,), "int32", scope="local")
                high = T.alloc_buffer((1,), "int32", scope="local")
                total = T.alloc_buffer((1,), "float32", scope="local")
                low[0] = 0
                high[0] = ABOVE_ALL
                total[0] = T.float32(0)
                for search in T.serial(PASSES):
                    # Pivot 0 is the lower end itself, to have its sum; the others rise from there to the upper end.
                    for j in T.unroll(GUESSES + 1):
                        bits[j] = T.min(low[0] + T.shift_right(high[0] - low[0] + 3, 2) * j, high[0])
                        own[j] = T.float32(0)
                    if search == 0:
                        for j in T.unroll(GUESSES):
                            # The guesses descend.
                            bits[GUESSES - j] = T.reinterpret("int32", guesses[bx, j])
                        for j in T.unroll(GUESSES):
                            bits[j + 1] = T.max(T.min(bits[j + 1], ABOVE_ALL), bits[j])
                    if search == 0 or high[0] - low[0] > 1:
                        for i in T.serial(blocks(vocabulary)):
                            if i * THREADS + tx < vocabulary:
                                for j in T.unroll(GUESSES + 1):
                                    if probs[bx, i * THREADS + tx] >= T.reinterpret("float32", bits[j]):
                                        own[j] = own[j] + probs[bx, i * THREADS + tx]
                    sum_each(parts, own, tx)
                    for j in T.unroll(GUESSES + 1):
                        own[j] = parts[0, j]
                    T.tvm_storage_sync("shared")
                    if search == 0 or high[0] - low[0] > 1:
                        total[0] = own[0]
                        for j in T.unroll(GUESSES):
                            # In rising order: the last pivot that keeps enough, and the first that does not.
                            if own[j + 1] >= top_p[bx]:
                                low[0] = bits[j + 1]
                                total[0] = own[j + 1]
                        for j in T.unroll(GUESSES):
                            if own[GUESSES - j] < top_p[bx]:
                                high[0] = bits[GUESSES - j]
                if tx == 0:
                    pivot[bx] = T.reinterpret("float32", low[0])
                    kept[bx] = total[0]

    return top_p_pivot


def renormalize_kernel() -> Any:
    """(probs[b, v], pivot[b], kept[b], result[b, v]): probs / kept where at least the pivot, else 0."""

    @T.prim_func(private=True, s_tir=True)
    def top_p_renormalize(
        probs_handle: T.handle, pivot_handle: T.handle, kept_handle: T.handle, result_handle: T.handle
    ) -> None:
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
        batch = T.int32()
        vocabulary = T.int32()
        probs = T.match_buffer(probs_handle, (batch, vocabulary), "float32")
        pivot = T.match_buffer(pivot_handle, (batch,), "float32")
        kept = T.match_buffer(kept_handle, (batch,), "float32")
        result = T.match_buffer(result_handle, (batch, vocabulary), "float32")
        for by in T.thread_binding(batch, "blockIdx.y"):
            for bx in T.thread_binding(blocks(vocabulary, CHUNK), "blockIdx.x"):
                for tx in T.thread_binding(THREADS, "threadIdx.x"):
                    for i in T.serial(CHUNK // THREADS):
                        at: T.let[T.int32] = bx * CHUNK + i * THREADS + tx
                        if at < vocabulary:
                            result[by, at] = T.if_then_else(
                                probs[by, at] >= pivot[by], probs[by, at] / kept[by], T.float32(0)
                            )

    return top_p_renormalize
