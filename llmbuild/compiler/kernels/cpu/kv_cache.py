"""Which functions of TVM's paged KV cache have a CPU kernel of ours."""

from __future__ import annotations

import math
from typing import Any

from llmbuild.compiler.kernels.cpu import rotary
from llmbuild.compiler.kernels.cpu.attention_decode import decode_kernel
from llmbuild.compiler.kernels.cpu.attention_prefill import paged_kernel, ragged_kernel
from llmbuild.compiler.kernels.cpu.tile import LANES
from llmbuild.models.kv_cache import KVCacheLayout


def replacements(layout: KVCacheLayout) -> dict[str, Any]:
    """Kernels of ours by the names that TVM's own have in a module.

    Empty where the layout has what ours do not support: head sizes that are no multiple of 16, and RoPE scalings other than
    llama3 and yarn.
    """
    if layout.head_dim % (2 * LANES) or not rotary.supported(layout.rope_scaling):
        return {}
    heads, kv_heads, dim, dtype = (
        layout.num_attention_heads,
        layout.num_key_value_heads,
        layout.head_dim,
        layout.dtype,
    )
    scaling = _yarn_ready(layout)
    shape = (heads, kv_heads, dim, dtype)
    return {
        "batch_decode_paged_kv_cpu": decode_kernel(*shape, False, scaling),
        "batch_decode_paged_kv_cpu_sliding_window": decode_kernel(*shape, True, scaling),
        "batch_prefill_paged_kv_cpu": paged_kernel(*shape, False, scaling),
        "batch_prefill_paged_kv_cpu_sliding_window": paged_kernel(*shape, True, scaling),
        "batch_prefill_ragged_kv": ragged_kernel(*shape, scaling),
        "fused_rope": rotary.split_kernel(layout.rope_theta, dim, heads, kv_heads, layout.rotary_dim, dtype, scaling),
    }


def _yarn_ready(layout: KVCacheLayout) -> dict[str, Any]:
    """The scaling with further values that TVM's function for yarn requires (TVM adds them before making its kernels)."""
    scaling: dict[str, Any] = dict(layout.rope_scaling)
    if scaling.get("rope_type") == "yarn":
        scaling.setdefault("inv_theta_log_scale", 1 / (2 * math.log(layout.rope_theta)))
    return scaling
