"""The kernel of the KV cache that splits a step's q, k and v, and applies RoPE to q and k, for any device.

TVM's computes frequencies from a base, as a few types of scaling have it.  Ours takes them from a table, which TVM's cache hands
to this kernel where it is given one (in the place for LongRoPE's factors), so that every type is the same on all devices.
"""

from __future__ import annotations

from typing import Any

from tvm import tirx
from tvm.script import tirx as T

from llmbuild.models.kv_cache import KVCacheLayout
from llmbuild.models.parts.rotary import rotation

NAME = "fused_rope"
"""TVM's name of the kernel."""


def split_kernel(layout: KVCacheLayout) -> Any:
    """(qkv [rows, heads + 2 kv_heads, dim], int32 positions [rows], q, k, v, frequencies): q, k and v by heads.

    Where the cache applies no RoPE the last argument is an int64 that says so.  It is left to the device's default schedule.
    """
    heads, kv_heads, dim, dtype = (
        layout.num_attention_heads,
        layout.num_key_value_heads,
        layout.head_dim,
        layout.dtype,
    )
    rope = layout.applied_rope

    def turned(qkv: Any, positions: Any, frequencies: Any, row: Any, head: Any, index: Any) -> Any:
        if rope is None:
            return qkv[row, head, index]
        at = rotation(index, rope)
        angle, factor = tirx.Cast("float32", positions[row]) * frequencies[at.pair], tirx.const(rope.factor, "float32")
        cosine, sine = tirx.cos(angle) * factor, tirx.sin(angle) * factor
        value = at.turned(lambda which: qkv[row, head, which].astype("float32"), cosine, sine).astype(dtype)
        return tirx.if_then_else(index < rope.rotary_dim, value, qkv[row, head, index])

    @T.macro
    def split(qkv, positions, q, k, v, frequencies, rows):
        for row, head, index in T.grid(rows, heads + 2 * kv_heads, dim):
            with T.sblock("split"):
                r, h, d = T.axis.remap("SSS", [row, head, index])
                if h < heads:
                    q[r, h, d] = turned(qkv, positions, frequencies, r, h, d)
                elif h < heads + kv_heads:
                    k[r, h - heads, d] = turned(qkv, positions, frequencies, r, h, d)
                else:
                    v[r, h - heads - kv_heads, d] = qkv[r, h, d]

    if rope is None:

        @T.prim_func(s_tir=True)
        def fused_split(
            qkv_handle: T.handle,
            positions_handle: T.handle,
            q_handle: T.handle,
            k_handle: T.handle,
            v_handle: T.handle,
            _apply_rope: T.int64,
        ) -> None:
            T.func_attr({"tirx.noalias": True, "op_pattern": 8})
            rows = T.int32()
            positions_offset = T.int32()
            qkv = T.match_buffer(qkv_handle, (rows, heads + 2 * kv_heads, dim), dtype)
            positions = T.match_buffer(positions_handle, (rows,), "int32", elem_offset=positions_offset)
            q = T.match_buffer(q_handle, (rows, heads, dim), dtype)
            k = T.match_buffer(k_handle, (rows, kv_heads, dim), dtype)
            v = T.match_buffer(v_handle, (rows, kv_heads, dim), dtype)
            split(qkv, positions, q, k, v, positions, rows)

        return fused_split.with_attr("global_symbol", NAME)

    half = rope.rotary_dim // 2

    @T.prim_func(s_tir=True)
    def fused_rope(
        qkv_handle: T.handle,
        positions_handle: T.handle,
        q_handle: T.handle,
        k_handle: T.handle,
        v_handle: T.handle,
        frequencies_handle: T.handle,
    ) -> None:
        T.func_attr({"tirx.noalias": True, "op_pattern": 8})
        rows = T.int32()
        positions_offset = T.int32()
        qkv = T.match_buffer(qkv_handle, (rows, heads + 2 * kv_heads, dim), dtype)
        positions = T.match_buffer(positions_handle, (rows,), "int32", elem_offset=positions_offset)
        q = T.match_buffer(q_handle, (rows, heads, dim), dtype)
        k = T.match_buffer(k_handle, (rows, kv_heads, dim), dtype)
        v = T.match_buffer(v_handle, (rows, kv_heads, dim), dtype)
        frequencies = T.match_buffer(frequencies_handle, (half,), "float32")
        split(qkv, positions, q, k, v, frequencies, rows)

    return fused_rope.with_attr("global_symbol", NAME)
