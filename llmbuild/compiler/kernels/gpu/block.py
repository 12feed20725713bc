"""Common parts of the GPU kernels: the size of a block, and reductions over its threads.

One text serves CUDA, ROCm, Metal, Vulkan, OpenCL and WebGPU, so a kernel uses only features that all of them offer: at most 256
threads a block, 16 KiB of shared memory, 8 buffers, 32-bit numbers, no atomics and no third grid dimension (TVM's WebGPU
code needs it to fold large grids).  Nor does a kernel pass data between threads through global memory: a barrier of TVM
orders only shared memory on Metal and OpenCL.  WebGPU moreover requires its barriers where control flow cannot depend on data;
exceptions are noted in the kernels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm import s_tir
from tvm.script import tirx as T

THREADS = 256
"""Threads a block."""

HALVINGS = 8
"""log2(THREADS): the steps of a reduction."""

OPAQUE = 8
"""TVM's number for a function that nothing is fused with."""


def blocks(count: Any, width: int = THREADS) -> Any:
    """How many blocks of `width` cover `count` elements, as an expression."""
    return (count + (width - 1)) // width


def at_least_one(count: Any) -> Any:
    """The extent of a grid dimension that may be empty.  TVM's runtimes launch one block then, and a kernel must compare with
    the count itself; without this TVM would prove the comparison true and drop it."""
    return T.max(count, 1)


def blocked(make: Callable[..., Any], *arguments: Any) -> Any:
    """The kernel that a function makes, in the form that the passes of Relax expect: its body is a block, and it is opaque, so
    that nothing is fused with it."""
    kernel = make(*arguments)
    root = s_tir.SBlock([], [], [], "root", kernel.body)
    return kernel.with_body(s_tir.SBlockRealize([], True, root)).with_attr("op_pattern", OPAQUE)


@T.macro
def block_sum(parts, tx):
    """parts[0] = the sum of parts[256], a shared buffer, as a tree: the result does not depend on timing."""
    for step in T.unroll(HALVINGS):
        T.tvm_storage_sync("shared")
        if tx < T.shift_right(THREADS // 2, step):
            parts[tx] = parts[tx] + parts[tx + T.shift_right(THREADS // 2, step)]
    T.tvm_storage_sync("shared")


@T.macro
def block_max(parts, tx):
    """parts[0] = the largest of parts[256], a shared buffer."""
    for step in T.unroll(HALVINGS):
        T.tvm_storage_sync("shared")
        if tx < T.shift_right(THREADS // 2, step):
            parts[tx] = T.max(parts[tx], parts[tx + T.shift_right(THREADS // 2, step)])
    T.tvm_storage_sync("shared")
