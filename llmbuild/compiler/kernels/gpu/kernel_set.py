"""The kernels that a library for a GPU uses, besides those for sampling."""

from __future__ import annotations

from typing import Any

from llmbuild.compiler.kernels import KernelSet
from llmbuild.compiler.kernels.gpu import logits, row_moves, softmax
from llmbuild.compiler.kernels.gpu.linear import GpuKernels
from llmbuild.compiler.kernels.gpu.merge import merge_kernel
from llmbuild.compiler.kernels.split_rotary import NAME as SPLIT
from llmbuild.compiler.kernels.split_rotary import split_kernel
from llmbuild.models.kv_cache import KVCacheLayout

MERGE = "tir_attention_merge_state"


def replacements(layout: KVCacheLayout) -> dict[str, Any]:
    """The kernels that merge two results of attention, and that split q, k and v."""
    kernel = merge_kernel(layout.num_attention_heads, layout.head_dim, layout.dtype)
    return {MERGE: kernel.with_attr("global_symbol", MERGE), SPLIT: split_kernel(layout)}


KERNELS = KernelSet(lambda *_: GpuKernels(), replacements, softmax, logits, row_moves)
