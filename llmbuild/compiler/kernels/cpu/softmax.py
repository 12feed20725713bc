"""CPU softmax with temperature over a vocabulary: one kernel, a row a thread.

A temperature of at most 1e-5 means greedy: then the sums count the largest logits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm import relax
from tvm.script import tirx as T

from llmbuild.compiler.kernels.cpu.tile import LANES, lane_sum


def softmax(builder: Any, logits: Any, temperature: Any, active: int | None, one: Callable[..., Any]) -> Any:
    """The call of the kernel in a function of the module."""
    kernel = builder.add_func(one(softmax_kernel, active), "softmax")
    return relax.call_tir(kernel, [logits, temperature], out_ty=logits.ty)


def softmax_kernel(active: int | None) -> Any:
    """(logits[b, 1, v], temperature[b], result[b, 1, v])."""

    @T.prim_func(private=True, s_tir=True)
    def softmax(logits_handle: T.handle, temperature_handle: T.handle, result_handle: T.handle) -> None:
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
        batch = T.int64()
        vocabulary = T.int64()
        logits = T.match_buffer(logits_handle, (batch, 1, vocabulary), "float32")
        temperature = T.match_buffer(temperature_handle, (batch,), "float32")
        result = T.match_buffer(result_handle, (batch, 1, vocabulary), "float32")
        used: T.let[T.int64] = vocabulary if active is None else T.min(vocabulary, T.int64(active))
        for b in T.parallel(batch):
            largest = T.alloc_buffer((1,), "float32", scope="global")
            # Eight partial sums: one alone loses digits over a large vocabulary.
            sums = T.alloc_buffer((1, LANES), "float32", scope="global")
            total = T.alloc_buffer((1,), "float32", scope="global")
            largest[0] = T.min_value("float32")
            for v in T.serial(used):
                largest[0] = T.max(largest[0], logits[b, 0, v])
            for j in T.unroll(LANES):
                sums[0, j] = T.float32(0)
            for v in T.serial(used):
                if temperature[b] > T.float32(1e-5):
                    result[b, 0, v] = T.exp((logits[b, 0, v] - largest[0]) / temperature[b])
                else:
                    result[b, 0, v] = T.Cast("float32", logits[b, 0, v] == largest[0])
                sums[0, v % LANES] = sums[0, v % LANES] + result[b, 0, v]
            total[0] = lane_sum(sums, 0)
            for v in T.serial(used):
                result[b, 0, v] = result[b, 0, v] / total[0]
            for v in T.serial(vocabulary - used):
                result[b, 0, used + v] = T.float32(0)

    return softmax
