"""The GPU kernel that merges two attention results over different keys, in place of TVM's.

With s = log2 of the sum of 2^score over the keys of a result, the result over both sets of keys is
(v * 2^s + v_other * 2^s_other) / (2^s + 2^s_other), and its s is log2(2^s + 2^s_other).  The KV cache calls it where a
prompt takes more than one chunk, and with a sliding window at each step.

In TVM's kernel all threads of a head read its s, and all write the merged one to the same place, without a barrier between:
where they do not run in step (threads beyond one SIMD group, and CPUs), some read what others have written.  It also loses
heads where their number is odd and they do not fit into a block.  Here one thread a head reads and writes s, and the others
get the two weights through shared memory.
"""

from __future__ import annotations

from typing import Any

from tvm.script import tirx as T

from llmbuild.compiler.kernels.gpu.block import THREADS, blocks


def merge_kernel(heads: int, dim: int, dtype: str) -> Any:
    """(v[n, heads, dim], s[n, heads], v_other[n, heads, dim], s_other[n, heads]): v and s become those of both."""
    vector = next(size for size in (4, 2, 1) if dim % size == 0)
    lanes = dim // vector
    together = min(heads, max(1, THREADS // lanes))

    @T.prim_func(s_tir=True)
    def merge(v_handle: T.handle, s_handle: T.handle, v_other_handle: T.handle, s_other_handle: T.handle) -> None:
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
        count = T.int32()
        v = T.match_buffer(v_handle, (count, heads, dim), dtype)
        s = T.match_buffer(s_handle, (count, heads), "float32")
        v_other = T.match_buffer(v_other_handle, (count, heads, dim), dtype)
        s_other = T.match_buffer(s_other_handle, (count, heads), "float32")
        for bx in T.thread_binding(count, "blockIdx.x"):
            for by in T.thread_binding(blocks(heads, together), "blockIdx.y"):
                for tx in T.thread_binding(together * lanes, "threadIdx.x"):
                    weights = T.alloc_buffer((2, together), "float32", scope="shared")
                    if tx < together and by * together + tx < heads:
                        own: T.let[T.float32] = s[bx, by * together + tx]
                        other: T.let[T.float32] = s_other[bx, by * together + tx]
                        largest: T.let[T.float32] = T.max(own, other)
                        total: T.let[T.float32] = T.exp2(own - largest) + T.exp2(other - largest)
                        weights[0, tx] = T.exp2(own - largest) / total
                        weights[1, tx] = T.exp2(other - largest) / total
                        s[bx, by * together + tx] = T.log2(total) + largest
                    T.tvm_storage_sync("shared")
                    if by * together + tx // lanes < heads:
                        for i in T.vectorized(vector):
                            v[bx, by * together + tx // lanes, tx % lanes * vector + i] = T.cast(
                                T.cast(v[bx, by * together + tx // lanes, tx % lanes * vector + i], "float32")
                                * weights[0, tx // lanes]
                                + T.cast(v_other[bx, by * together + tx // lanes, tx % lanes * vector + i], "float32")
                                * weights[1, tx // lanes],
                                dtype,
                            )

    return merge
