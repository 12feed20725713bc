"""Rotary position embedding on CPU: common parts of the attention kernels, and the kernel that splits q, k and v.

An angle is position * scale * frequency.  Frequencies (with whatever scaling the model has) cost a power each, angles a
sine and a cosine; TVM's kernels compute all three for each element of each head.  Here frequencies are computed once a
call and angles once a position, and inside attention the angles of neighbouring positions come from one another by
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

SCALINGS = (None, "llama3", "yarn")
"""RoPE types whose angles are proportional to the position, and whose cosine and sine have the factor 1."""

RESYNC = 16
"""Blocks of positions after which the angles are computed afresh, so that rounding errors do not add up."""


def supported(rope_scaling: Mapping[str, Any]) -> bool:
    """Whether these kernels support the scaling."""
    return rope_scaling.get("rope_type") in SCALINGS


def frequency(rope_scaling: Mapping[str, Any], theta: Any, index: Any, dim: int) -> Any:
    """The frequency of pair `index` (below dim / 2), as TVM's function for the scaling has it."""
    switch = switch_rope_freq_func(dict(rope_scaling))
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


def split_kernel(
    theta: float, dim: int, heads: int, kv_heads: int, rotary_dim: int, dtype: str, rope_scaling: Mapping[str, Any]
) -> Any:
    """qkv [rows, heads + 2 kv_heads, dim] and int32 positions [rows] -> q, k, v; RoPE on the first `rotary_dim` elements
    of each head of q and k where `apply_rope` is positive.  Signature of TVM's `llama_rope_with_position_map`."""
    half = rotary_dim // 2
    lanes = math.gcd(half, LANES)
    rest_lanes = math.gcd(dim - rotary_dim, LANES) if dim > rotary_dim else 1
    whole_lanes = math.gcd(dim, LANES)

    @T.macro
    def rotate_head(qkv, out, c, s, row, source, head):
        for p in T.serial(half // lanes):
            for j in T.vectorized(lanes):
                out[row, head, p * lanes + j] = T.Cast(
                    dtype,
                    f32(qkv[row, source, p * lanes + j]) * c[p * lanes + j]
                    - f32(qkv[row, source, half + p * lanes + j]) * s[p * lanes + j],
                )
            for j in T.vectorized(lanes):
                out[row, head, half + p * lanes + j] = T.Cast(
                    dtype,
                    f32(qkv[row, source, half + p * lanes + j]) * c[p * lanes + j]
                    + f32(qkv[row, source, p * lanes + j]) * s[p * lanes + j],
                )
        for p in T.serial((dim - rotary_dim) // rest_lanes):
            for j in T.vectorized(rest_lanes):
                out[row, head, rotary_dim + p * rest_lanes + j] = qkv[row, source, rotary_dim + p * rest_lanes + j]

    @T.macro
    def split_row(qkv, positions, q, k, v, apply_rope, frequencies, c, s, row):
        if apply_rope > 0:
            for d in T.serial(half):
                c[d] = T.cos(T.Cast("float32", positions[row]) * frequencies[d])
                s[d] = T.sin(T.Cast("float32", positions[row]) * frequencies[d])
        else:
            for d in T.serial(half):
                c[d] = T.float32(1)
                s[d] = T.float32(0)
        for h in T.serial(heads):
            rotate_head(qkv, q, c, s, row, h, h)
        for h in T.serial(kv_heads):
            rotate_head(qkv, k, c, s, row, heads + h, h)
        for h in T.serial(kv_heads):
            for p in T.serial(dim // whole_lanes):
                for j in T.vectorized(whole_lanes):
                    v[row, h, p * whole_lanes + j] = qkv[row, heads + kv_heads + h, p * whole_lanes + j]

    @T.prim_func(private=True, s_tir=True)
    def split_rotary(
        qkv_handle: T.handle,
        positions_handle: T.handle,
        q_handle: T.handle,
        k_handle: T.handle,
        v_handle: T.handle,
        apply_rope: T.int64,
    ) -> None:
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
        rows = T.int32()
        positions_offset = T.int32()
        qkv = T.match_buffer(qkv_handle, (rows, heads + 2 * kv_heads, dim), dtype)
        q = T.match_buffer(q_handle, (rows, heads, dim), dtype)
        k = T.match_buffer(k_handle, (rows, kv_heads, dim), dtype)
        v = T.match_buffer(v_handle, (rows, kv_heads, dim), dtype)
        positions = T.match_buffer(positions_handle, (rows,), "int32", elem_offset=positions_offset)
        frequencies = T.alloc_buffer((half,), "float32")
        for d in T.serial(half):
            frequencies[d] = frequency(rope_scaling, T.float32(theta), d, rotary_dim)
        if rows == 1:
            one_c = T.alloc_buffer((half,), "float32", scope="global")
            one_s = T.alloc_buffer((half,), "float32", scope="global")
            split_row(qkv, positions, q, k, v, apply_rope, frequencies, one_c, one_s, 0)
        else:
            for row in T.parallel(rows):
                c = T.alloc_buffer((half,), "float32", scope="global")
                s = T.alloc_buffer((half,), "float32", scope="global")
                split_row(qkv, positions, q, k, v, apply_rope, frequencies, c, s, row)

    return split_rotary
