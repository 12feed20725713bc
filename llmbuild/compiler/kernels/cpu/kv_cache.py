"""Which functions of TVM's paged KV cache have a CPU kernel of ours."""

from __future__ import annotations

from typing import Any

from llmbuild.compiler.kernels.cpu.attention_decode import decode_kernel
from llmbuild.compiler.kernels.cpu.attention_prefill import paged_kernel, ragged_kernel
from llmbuild.compiler.kernels.cpu.rotary import split_kernel
from llmbuild.compiler.kernels.cpu.tile import LANES
from llmbuild.compiler.kernels.split_rotary import NAME as SPLIT
from llmbuild.models.kv_cache import KVCacheLayout


def replacements(layout: KVCacheLayout) -> dict[str, Any]:
    """Kernels of ours by the names that TVM's own have in a module.

    Ours for attention do not support head sizes that are no multiple of 16.
    """
    split = {SPLIT: split_kernel(layout)}
    if layout.head_dim % (2 * LANES):
        return split
    # A rolling cache's attention turns q and k, by frequencies that it computes.
    scaling = dict(layout.rope.scaling or {}) if layout.rolling and layout.rope is not None else None
    shape = (layout.num_attention_heads, layout.num_key_value_heads, layout.head_dim, layout.dtype)
    kernels = {
        "batch_decode_paged_kv_cpu": decode_kernel(*shape, False, scaling, layout.window, layout.softcap),
        "batch_prefill_paged_kv_cpu": paged_kernel(*shape, False, scaling, layout.window, layout.softcap),
        "batch_prefill_ragged_kv": ragged_kernel(*shape, scaling, layout.window, layout.softcap),
        **split,
    }
    if layout.rolling:
        kernels |= {
            "batch_decode_paged_kv_cpu_sliding_window": decode_kernel(*shape, True, scaling, None, layout.softcap),
            "batch_prefill_paged_kv_cpu_sliding_window": paged_kernel(*shape, True, scaling, None, layout.softcap),
        }
    return kernels
