"""GPU softmax with temperature over a vocabulary, in two launches.

A row is cut into chunks of 4,096 so that one row alone occupies many blocks.  The first kernel finds each chunk's largest
logit and its sum of exponentials relative to that; the second combines the chunks of its row and writes the probabilities.
A temperature of at most 1e-5 means greedy: then the sums count the largest logits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm import relax
from tvm.script import tirx as T

from llmbuild.compiler.kernels.gpu.block import THREADS, block_max, block_sum, blocked, blocks

CHUNK = 4096
"""Columns a block."""

GREEDY = 1e-5
"""Temperatures up to this one take the largest logit."""


def softmax(builder: Any, logits: Any, temperature: Any, active: int | None, one: Callable[..., Any]) -> Any:
    """The calls of the two kernels in a function of the module."""
    batch, _, vocabulary = logits.ty.shape
    chunks = relax.TensorType([batch, blocks(vocabulary, CHUNK)], "float32")
    statistics = builder.add_func(one(blocked, statistics_kernel, active), "softmax_statistics")
    probabilities = builder.add_func(one(blocked, probabilities_kernel, active), "softmax_probabilities")
    found = builder.emit(relax.call_tir(statistics, [logits, temperature], out_ty=[chunks, chunks]))
    return relax.call_tir(probabilities, [logits, temperature, found[0], found[1]], out_ty=logits.ty)


def weight(logit: Any, largest: Any, temperature: Any) -> Any:
    """exp((logit - largest) / temperature), or whether the two are equal where the temperature means greedy."""
    return T.if_then_else(
        temperature > T.float32(GREEDY),
        T.exp((logit - largest) / temperature),
        T.Select(logit == largest, T.float32(1), T.float32(0)),
    )


def used_columns(vocabulary: Any, active: int | None) -> Any:
    """How many tokens of the vocabulary may have a probability."""
    return vocabulary if active is None else T.min(vocabulary, T.int32(active))


def statistics_kernel(active: int | None) -> Any:
    """(logits[b, 1, v], temperature[b], largest[b, chunks], total[b, chunks])."""

    @T.prim_func(private=True, s_tir=True)
    def softmax_statistics(
        logits_handle: T.handle, temperature_handle: T.handle, largest_handle: T.handle, total_handle: T.handle
    ) -> None:
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
        batch = T.int32()
        vocabulary = T.int32()
        chunks = T.int32()
        logits = T.match_buffer(logits_handle, (batch, 1, vocabulary), "float32")
        temperature = T.match_buffer(temperature_handle, (batch,), "float32")
        largest = T.match_buffer(largest_handle, (batch, chunks), "float32")
        total = T.match_buffer(total_handle, (batch, chunks), "float32")
        for by in T.thread_binding(batch, "blockIdx.y"):
            for bx in T.thread_binding(chunks, "blockIdx.x"):
                for tx in T.thread_binding(THREADS, "threadIdx.x"):
                    tops = T.alloc_buffer((THREADS,), "float32", scope="shared")
                    sums = T.alloc_buffer((THREADS,), "float32", scope="shared")
                    own = T.alloc_buffer((1,), "float32", scope="local")
                    # Not from the lowest float32, as logits may be lower than what TVM's literal for it has digits for.
                    own[0] = logits[by, 0, T.min(bx * CHUNK, used_columns(vocabulary, active) - 1)]
                    for i in T.serial(CHUNK // THREADS):
                        if bx * CHUNK + i * THREADS + tx < used_columns(vocabulary, active):
                            own[0] = T.max(own[0], logits[by, 0, bx * CHUNK + i * THREADS + tx])
                    tops[tx] = own[0]
                    block_max(tops, tx)
                    own[0] = T.float32(0)
                    for i in T.serial(CHUNK // THREADS):
                        if bx * CHUNK + i * THREADS + tx < used_columns(vocabulary, active):
                            own[0] = own[0] + weight(
                                logits[by, 0, bx * CHUNK + i * THREADS + tx], tops[0], temperature[by]
                            )
                    sums[tx] = own[0]
                    block_sum(sums, tx)
                    if tx == 0:
                        largest[by, bx] = tops[0]
                        total[by, bx] = sums[0]

    return softmax_statistics


def probabilities_kernel(active: int | None) -> Any:
    """(logits[b, 1, v], temperature[b], largest[b, chunks], total[b, chunks], result[b, 1, v])."""

    @T.prim_func(private=True, s_tir=True)
    def softmax_probabilities(
        logits_handle: T.handle,
        temperature_handle: T.handle,
        largest_handle: T.handle,
        total_handle: T.handle,
        result_handle: T.handle,
    ) -> None:
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
        batch = T.int32()
        vocabulary = T.int32()
        chunks = T.int32()
        logits = T.match_buffer(logits_handle, (batch, 1, vocabulary), "float32")
        temperature = T.match_buffer(temperature_handle, (batch,), "float32")
        largest = T.match_buffer(largest_handle, (batch, chunks), "float32")
        total = T.match_buffer(total_handle, (batch, chunks), "float32")
        result = T.match_buffer(result_handle, (batch, 1, vocabulary), "float32")
        for by in T.thread_binding(batch, "blockIdx.y"):
            for bx in T.thread_binding(blocks(vocabulary, CHUNK), "blockIdx.x"):
                for tx in T.thread_binding(THREADS, "threadIdx.x"):
                    top = T.alloc_buffer((1,), "float32", scope="local")
                    whole = T.alloc_buffer((1,), "float32", scope="local")
                    # Each thread combines the few chunks of its row: cheaper than a third launch.
                    top[0] = largest[by, 0]
                    for c in T.serial(chunks):
                        top[0] = T.max(top[0], largest[by, c])
                    whole[0] = T.float32(0)
                    for c in T.serial(chunks):
                        whole[0] = whole[0] + total[by, c] * weight(largest[by, c], top[0], temperature[by])
                    for i in T.serial(CHUNK // THREADS):
                        at: T.let[T.int32] = bx * CHUNK + i * THREADS + tx
                        if at < vocabulary:
                            result[by, 0, at] = T.if_then_else(
                                at < used_columns(vocabulary, active),
                                weight(logits[by, 0, at], top[0], temperature[by]) / whole[0],
                                T.float32(0),
                            )

    return softmax_probabilities
