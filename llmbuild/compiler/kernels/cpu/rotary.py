"""Rotary position embedding on CPU: common parts of the attention kernels, and the kernel that splits q, k and v.

An angle is position * frequency, and costs a sine and a cosine; TVM's kernels compute both, and the frequency, for each
element of each head.  Here angles are computed once a position, from a table of frequencies.  Where a rolling cache turns keys
inside attention, frequencies are computed once a call, and the angles of neighbouring positions come from one another by
complex multiplication.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from tvm import tirx
from tvm.relax.frontend.nn.llm.position_embedding import switch_rope_freq_func
from tvm.script import tirx as T

from llmbuild.compiler.kernels.cpu.tile import LANES, f32
from llmbuild.models.kv_cache import KVCacheLayout

RESYNC = 16
"""Blocks of positions after which the angles are computed afresh, so that rounding errors do not add up."""


def turns(rope_scaling: Mapping[str, Any] | None, rotary_mode: Any) -> Any:
    """Whether attention turns q and k: never without a scaling (which may be empty), else as the cache says in each call."""
    return False if rope_scaling is None else rotary_mode == 1


def scale_of(rope_scaling: Mapping[str, Any] | None, rotary_mode: Any, rope_scale: Any) -> Any:
    """The factor of positions where attention turns q and k, and 0 where it does not."""
    return T.float32(0) if rope_scaling is None else T.if_then_else(rotary_mode == 1, rope_scale, T.float32(0))


def frequency(rope_scaling: Mapping[str, Any] | None, theta: Any, index: Any, dim: int) -> Any:
    """The frequency of pair `index` (below dim / 2), as TVM's function for the scaling has it."""
    switch = switch_rope_freq_func(dict(rope_scaling or {}))
    _, _, bindings = switch(T.float32(1), index, dim, theta, "float32")
    (_, angle), *rest = bindings.items()
    for variable, value in rest:
        angle = tirx.Let(variable, value, angle)
    return angle


@T.macro
def turn(c, s, row, from_c, from_s, from_row, by_c, by_s, by_row, half):
    """(c, s)[row] = the angles (from_c, from_s)[from_row] plus the angles (by_c, by_s)[by_row]."""
    for p in T.serial(half // LANES):
        for j in T.vectorized(LANES):
            c[row, p * LANES + j] = (
                from_c[from_row, p * LANES + j] * by_c[by_row, p * LANES + j]
                - from_s[from_row, p * LANES + j] * by_s[by_row, p * LANES + j]
            )
        for j in T.vectorized(LANES):
            s[row, p * LANES + j] = (
                from_s[from_row, p * LANES + j] * by_c[by_row, p * LANES + j]
                + from_c[from_row, p * LANES + j] * by_s[by_row, p * LANES + j]
            )


@T.macro
def angles(frequencies, c, s, row, position, half):
    """(c, s)[row] = cosine and sine of the angles at a position (already scaled)."""
    for d in T.serial(half):
        c[row, d] = T.cos(position * frequencies[d])
        s[row, d] = T.sin(position * frequencies[d])


@T.macro
def steps(frequencies, c, s, count, scale, half):
    """(c, s)[i] = the angles by which positions i apart differ, for i up to `count` included."""
    angles(frequencies, c, s, 0, T.float32(0), half)
    angles(frequencies, c, s, 1, scale, half)
    for i in T.serial(count - 1):
        turn(c, s, i + 2, c, s, i + 1, c, s, 1, half)


@T.macro
def advance(frequencies, c, s, step_c, step_s, spare, block, size, position, half):
    """(c, s)[0] = the angles of the first position of a block of `size`, from those of the block before where possible."""
    if block % RESYNC == 0:
        angles(frequencies, c, s, 0, position, half)
    else:
        for p in T.serial(half // LANES):
            for j in T.vectorized(LANES):
                spare[j] = (
                    c[0, p * LANES + j] * step_c[size, p * LANES + j]
                    - s[0, p * LANES + j] * step_s[size, p * LANES + j]
                )
            for j in T.vectorized(LANES):
                s[0, p * LANES + j] = (
                    s[0, p * LANES + j] * step_c[size, p * LANES + j]
                    + c[0, p * LANES + j] * step_s[size, p * LANES + j]
                )
            for j in T.vectorized(LANES):
                c[0, p * LANES + j] = spare[j]


def split_kernel(layout: KVCacheLayout) -> Any:
    """`kernels.split_rotary.split_kernel` for a CPU."""
    heads, kv_heads, dim, dtype = (
        layout.num_attention_heads,
        layout.num_key_value_heads,
        layout.head_dim,
        layout.dtype,
    )
    rope = layout.applied_rope
    whole_lanes = math.gcd(dim, LANES)

    @T.macro
    def copy_head(qkv, out, row, source, head):
        for p in T.serial(dim // whole_lanes):
            for j in T.vectorized(whole_lanes):
                out[row, head, p * whole_lanes + j] = qkv[row, source, p * whole_lanes + j]

    if rope is None:

        @T.prim_func(private=True, s_tir=True)
        def split(
            qkv_handle: T.handle,
            positions_handle: T.handle,
            q_handle: T.handle,
            k_handle: T.handle,
            v_handle: T.handle,
            _apply_rope: T.int64,
        ) -> None:
            T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
            rows = T.int32()
            positions_offset = T.int32()
            qkv = T.match_buffer(qkv_handle, (rows, heads + 2 * kv_heads, dim), dtype)
            q = T.match_buffer(q_handle, (rows, heads, dim), dtype)
            k = T.match_buffer(k_handle, (rows, kv_heads, dim), dtype)
            v = T.match_buffer(v_handle, (rows, kv_heads, dim), dtype)
            T.match_buffer(positions_handle, (rows,), "int32", elem_offset=positions_offset)
            for row in T.parallel(rows):
                for h in T.serial(heads):
                    copy_head(qkv, q, row, h, h)
                for h in T.serial(kv_heads):
                    copy_head(qkv, k, row, heads + h, h)
                    copy_head(qkv, v, row, heads + kv_heads + h, h)

        return split

    rotary_dim, half, factor = rope.rotary_dim, rope.rotary_dim // 2, rope.factor
    # Elements of a head: pair p is first(p) and first(p) + apart.
    step, apart = (2, 1) if rope.interleaved else (1, half)
    lanes = math.gcd(half, LANES)
    rest_lanes = math.gcd(dim - rotary_dim, LANES) if dim > rotary_dim else 1

    @T.macro
    def rotate_head(qkv, out, c, s, row, source, head):
        for p in T.serial(half // lanes):
            for j in T.vectorized(lanes):
                out[row, head, (p * lanes + j) * step] = T.Cast(
                    dtype,
                    f32(qkv[row, source, (p * lanes + j) * step]) * c[p * lanes + j]
                    - f32(qkv[row, source, (p * lanes + j) * step + apart]) * s[p * lanes + j],
                )
            for j in T.vectorized(lanes):
                out[row, head, (p * lanes + j) * step + apart] = T.Cast(
                    dtype,
                    f32(qkv[row, source, (p * lanes + j) * step + apart]) * c[p * lanes + j]
                    + f32(qkv[row, source, (p * lanes + j) * step]) * s[p * lanes + j],
                )
        for p in T.serial((dim - rotary_dim) // rest_lanes):
            for j in T.vectorized(rest_lanes):
                out[row, head, rotary_dim + p * rest_lanes + j] = qkv[row, source, rotary_dim + p * rest_lanes + j]

    @T.macro
    def split_row(qkv, positions, q, k, v, frequencies, c, s, row):
        for d in T.serial(half):
            c[d] = T.cos(T.Cast("float32", positions[row]) * frequencies[d]) * T.float32(factor)
            s[d] = T.sin(T.Cast("float32", positions[row]) * frequencies[d]) * T.float32(factor)
        for h in T.serial(heads):
            rotate_head(qkv, q, c, s, row, h, h)
        for h in T.serial(kv_heads):
            rotate_head(qkv, k, c, s, row, heads + h, h)
            copy_head(qkv, v, row, heads + kv_heads + h, h)

    @T.prim_func(private=True, s_tir=True)
    def split_rotary(
        qkv_handle: T.handle,
        positions_handle: T.handle,
        q_handle: T.handle,
        k_handle: T.handle,
        v_handle: T.handle,
        frequencies_handle: T.handle,
    ) -> None:
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
        rows = T.int32()
        positions_offset = T.int32()
        qkv = T.match_buffer(qkv_handle, (rows, heads + 2 * kv_heads, dim), dtype)
        q = T.match_buffer(q_handle, (rows, heads, dim), dtype)
        k = T.match_buffer(k_handle, (rows, kv_heads, dim), dtype)
        v = T.match_buffer(v_handle, (rows, kv_heads, dim), dtype)
        positions = T.match_buffer(positions_handle, (rows,), "int32", elem_offset=positions_offset)
        frequencies = T.match_buffer(frequencies_handle, (half,), "float32")
        if rows == 1:
            one_c = T.alloc_buffer((half,), "float32", scope="global")
            one_s = T.alloc_buffer((half,), "float32", scope="global")
            split_row(qkv, positions, q, k, v, frequencies, one_c, one_s, 0)
        else:
            for row in T.parallel(rows):
                c = T.alloc_buffer((half,), "float32", scope="global")
                s = T.alloc_buffer((half,), "float32", scope="global")
                split_row(qkv, positions, q, k, v, frequencies, c, s, row)

    return split_rotary
