"""GPU forms of the functions that collect and spread rows: a thread an element."""

from __future__ import annotations

from typing import Any

from tvm.script import tirx as T

from llmbuild.compiler.kernels.gpu.block import THREADS, at_least_one, blocks


def scatter_kernel(dtype: str) -> Any:
    """target[rows[i], :] = source[i, :]."""

    @T.prim_func(s_tir=True)
    def scatter(source_handle: T.handle, rows_handle: T.handle, target_handle: T.handle) -> None:
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
        count = T.int32()
        total = T.int32()
        width = T.int32()
        source = T.match_buffer(source_handle, (count, width), dtype)
        rows = T.match_buffer(rows_handle, (count,), "int32")
        target = T.match_buffer(target_handle, (total, width), dtype)
        for by in T.thread_binding(at_least_one(count), "blockIdx.y"):
            for bx in T.thread_binding(blocks(width), "blockIdx.x"):
                for tx in T.thread_binding(THREADS, "threadIdx.x"):
                    if by < count and bx * THREADS + tx < width:
                        target[rows[by], bx * THREADS + tx] = source[by, bx * THREADS + tx]

    return scatter


def gather_kernel(dtype: str) -> Any:
    """target[i, :] = source[rows[i], :]."""

    @T.prim_func(s_tir=True)
    def gather(source_handle: T.handle, rows_handle: T.handle, target_handle: T.handle) -> None:
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
        count = T.int32()
        total = T.int32()
        width = T.int32()
        source = T.match_buffer(source_handle, (total, width), dtype)
        rows = T.match_buffer(rows_handle, (count,), "int32")
        target = T.match_buffer(target_handle, (count, width), dtype)
        for by in T.thread_binding(at_least_one(count), "blockIdx.y"):
            for bx in T.thread_binding(blocks(width), "blockIdx.x"):
                for tx in T.thread_binding(THREADS, "threadIdx.x"):
                    if by < count and bx * THREADS + tx < width:
                        target[by, bx * THREADS + tx] = source[rows[by], bx * THREADS + tx]

    return gather
