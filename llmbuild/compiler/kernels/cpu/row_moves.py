"""CPU forms of the functions that collect and spread rows: a loop over rows around one over columns."""

from __future__ import annotations

from typing import Any

from tvm.script import tirx as T


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
        for i in T.serial(count):
            for j in T.serial(width):
                target[rows[i], j] = source[i, j]

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
        for i in T.serial(count):
            for j in T.serial(width):
                target[i, j] = source[rows[i], j]

    return gather
