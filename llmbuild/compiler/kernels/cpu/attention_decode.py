"""CPU attention of one query a sequence over the paged cache: the decode kernel.

Query heads that share a head of the cache are computed together, so that the cache is read once for all of them; they are
divided where few heads would be left for the threads to share.  Each goes through its keys in blocks of 16: scores of some
positions at once, each with its own vector of sums, then the block's values weighted by the online softmax.  Where the cache
applies RoPE inside attention (a rolling cache renumbers positions), a block of keys is rotated into a tile first.  A layer
with a window begins with the block of the first key that the query sees.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tvm
from tvm.script import tirx as T

from llmbuild.compiler.kernels.cpu import rotary
from llmbuild.compiler.kernels.cpu.attention import (
    PAGE_SIZE,
    PagedSource,
    TileSource,
    find_block,
    held,
    lengths_shape,
    rotate_keys,
)
from llmbuild.compiler.kernels.cpu.online_softmax import LOG2_E, LOWEST, exp2
from llmbuild.compiler.kernels.cpu.tile import LANES, f32, lane_sum
from llmbuild.compiler.kernels.scores import capped, first_visible, magnitude

BLOCK = 16
"""Positions a step."""
LINE = 64
"""Bytes that memory gives at once."""
TASKS = 8
"""Parts of one sequence's attention that threads share, at least."""


def heads_together(heads: int, kv_heads: int) -> int:
    """How many query heads are computed together: a divisor of those that share a head of the cache, up to 4, whose vectors of
    sums fit into registers, that leaves at least `TASKS` for the threads of one sequence."""
    group = heads // kv_heads
    return max(count for count in (1, 2, 4) if count == 1 or (group % count == 0 and heads // count >= TASKS))


def at_once(together: int) -> int:
    """Positions whose scores are computed at once."""
    return LANES // together


def chains(together: int) -> int:
    """Sums of an element that add up independently of each other."""
    return 2 if together <= 2 else 1


@T.macro
def ask_for_block(source, start, count, dim, line):
    """Ask memory for the keys and values of a block, each of `dim` elements in lines of `line`: blocks lie on pages far apart,
    where the memory's own prefetch begins anew."""
    for i in T.serial(BLOCK):
        for v in T.unroll(2):
            for p in T.unroll(-(-dim // line)):
                T.evaluate(source.ask(T.min(start + i, count - 1), v, p * line))


@T.macro
def score_block(query, source, scores, sums, together, dim):
    """scores[together, 16] = queries . keys, by as many vectors of sums as a vector has lanes."""
    for part in T.serial(BLOCK // at_once(together)):
        for r in T.unroll(at_once(together)):
            for g in T.unroll(together):
                for j in T.vectorized(LANES):
                    sums[r * together + g, j] = T.float32(0)
        for p in T.serial(dim // LANES):
            for r in T.unroll(at_once(together)):
                for g in T.unroll(together):
                    for j in T.vectorized(LANES):
                        sums[r * together + g, j] = sums[r * together + g, j] + query[g, p * LANES + j] * source.key(
                            part * at_once(together) + r, p * LANES + j
                        )
        for r in T.unroll(at_once(together)):
            for g in T.unroll(together):
                scores[g, part * at_once(together) + r] = lane_sum(sums, r * together + g)


@T.macro
def add_values(source, scores, total, sums, state, together, dim):
    """total[together, dim] = total * state[:, 2] + the values weighted by scores, 16 elements of a head at once."""
    for p in T.serial(dim // (2 * LANES)):
        for g in T.unroll(together):
            for h in T.unroll(2):
                for j in T.vectorized(LANES):
                    sums[g * 2 + h, j] = total[g, p * 2 * LANES + h * LANES + j] * state[g, 2]
                if chains(together) == 2:
                    for j in T.vectorized(LANES):
                        sums[together * 2 + g * 2 + h, j] = T.float32(0)
        for i in T.unroll(BLOCK // chains(together)):
            for e in T.unroll(chains(together)):
                for g in T.unroll(together):
                    for h in T.unroll(2):
                        for j in T.vectorized(LANES):
                            sums[(e * together + g) * 2 + h, j] = sums[(e * together + g) * 2 + h, j] + scores[
                                g, i * chains(together) + e
                            ] * source.value(i * chains(together) + e, p * 2 * LANES + h * LANES + j)
        for g in T.unroll(together):
            for h in T.unroll(2):
                for j in T.vectorized(LANES):
                    total[g, p * 2 * LANES + h * LANES + j] = (
                        sums[g * 2 + h, j] + sums[together * 2 + g * 2 + h, j]
                        if chains(together) == 2
                        else sums[g * 2 + h, j]
                    )


@T.macro
def cap(scores, together, softcap):
    for g in T.unroll(together):
        for i in T.vectorized(BLOCK):
            scores[g, i] = capped(scores[g, i], softcap)


def seen(position: Any, low: Any, count: Any) -> Any:
    """Whether a key is one of low to count - 1; None is the first."""
    return position < count if low is None else T.And(position >= low, position < count)


@T.macro
def weigh(scores, state, g, start, low, count):
    """Scores to weights; state[g] = maximum, sum of weights, and the factor for what was summed before."""
    state[g, 2] = state[g, 0]
    for i in T.serial(BLOCK):
        state[g, 0] = T.max(state[g, 0], T.if_then_else(seen(start + i, low, count), scores[g, i], T.float32(LOWEST)))
    state[g, 2] = exp2(state[g, 2] - state[g, 0])
    for i in T.vectorized(BLOCK):
        scores[g, i] = T.Select(
            seen(start + i, low, count), exp2(T.min(scores[g, i] - state[g, 0], T.float32(0))), T.float32(0)
        )
    state[g, 1] = state[g, 1] * state[g, 2]
    for i in T.serial(BLOCK):
        state[g, 1] = state[g, 1] + scores[g, i]


def decode_kernel(
    heads: int,
    kv_heads: int,
    dim: int,
    dtype: str,
    sliding: bool,
    rope_scaling: Mapping[str, Any] | None,
    window: int | None = None,
    softcap: float | None = None,
) -> Any:
    """The kernel, with the signature of TVM's `_attention_decode_cpu`.

    `sliding` is for a rolling cache, which has no layers with a `window`.  Without `rope_scaling` q and k come turned.
    """
    group, half, together = heads // kv_heads, dim // 2, heads_together(heads, kv_heads)
    line = LINE // (tvm.DataType(dtype).bits // 8)

    def lowest(position: Any, key_start: Any, scale: Any) -> Any:
        return None if window is None else first_visible(position, key_start, window, scale)

    def first_block(low: Any) -> Any:
        return 0 if low is None else low // BLOCK

    @T.prim_func(private=True, s_tir=True)
    def attention_decode(
        q_handle: T.handle,
        pages_handle: T.handle,
        page_begins_handle: T.handle,
        page_table_handle: T.handle,
        lengths_handle: T.handle,
        key_start_handle: T.handle,
        positions_handle: T.handle,
        output_handle: T.handle,
        lse_handle: T.handle,
        rotary_mode: T.int32,
        rope_scale: T.float32,
        rope_theta: T.float32,
        scale: T.float32,
    ) -> None:
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
        batch = T.int32()
        page_count = T.int32()
        table_size = T.int32()
        offset_1 = T.int32()
        offset_2 = T.int32()
        offset_3 = T.int32()
        offset_4 = T.int32()
        offset_5 = T.int32()
        q = T.match_buffer(q_handle, (batch, heads, dim), dtype)
        pages = T.match_buffer(pages_handle, (page_count, 2, kv_heads, PAGE_SIZE, dim), dtype)
        page_begins = T.match_buffer(page_begins_handle, (batch + 1,), "int32", elem_offset=offset_1)
        page_table = T.match_buffer(page_table_handle, (table_size,), "int32", elem_offset=offset_2)
        key_start = T.match_buffer(key_start_handle, (batch,), "int32", elem_offset=offset_3)
        positions = T.match_buffer(positions_handle, (batch,), "int32", elem_offset=offset_4)
        output = T.match_buffer(output_handle, (batch, heads, dim), dtype)
        lse = T.match_buffer(lse_handle, (batch, heads), "float32")
        lengths = T.match_buffer(lengths_handle, lengths_shape(batch, sliding), "int32", elem_offset=offset_5)
        for task in T.parallel(batch * (heads // together)):
            query = T.alloc_buffer((together, dim), "float32", scope="global")
            total = T.alloc_buffer((together, dim), "float32", scope="global")
            scores = T.alloc_buffer((together, BLOCK), "float32", scope="global")
            sums = T.alloc_buffer((LANES, LANES), "float32", scope="global")
            state = T.alloc_buffer((together, 3), "float32", scope="global")
            page = T.alloc_buffer((BLOCK,), "int32", scope="global")
            slot = T.alloc_buffer((BLOCK,), "int32", scope="global")
            frequencies = T.alloc_buffer((half,), "float32", scope="global")
            c = T.alloc_buffer((1, half), "float32", scope="global")
            s = T.alloc_buffer((1, half), "float32", scope="global")
            at = T.alloc_buffer((2, LANES), "float32", scope="global")
            step_c = T.alloc_buffer((BLOCK + 1, half), "float32", scope="global")
            step_s = T.alloc_buffer((BLOCK + 1, half), "float32", scope="global")
            tile = T.alloc_buffer((BLOCK, dim), "float32", scope="global")
            spare = T.alloc_buffer((LANES,), "float32", scope="global")
            b: T.let[T.int32] = task // (heads // together)
            h: T.let[T.int32] = task % (heads // together) * together
            first: T.let[T.int32] = page_begins[b]
            count: T.let[T.int32] = held(first, page_begins[b + 1], b, lengths, sliding)
            for g in T.serial(together):
                for p in T.serial(dim // LANES):
                    for j in T.vectorized(LANES):
                        query[g, p * LANES + j] = f32(q[b, h + g, p * LANES + j]) * (
                            magnitude(scale, window) * T.float32(LOG2_E)
                        )
                        total[g, p * LANES + j] = T.float32(0)
                state[g, 0] = T.float32(LOWEST)
                state[g, 1] = T.float32(1)
            if rotary.turns(rope_scaling, rotary_mode):
                for d in T.serial(half):
                    frequencies[d] = rotary.frequency(rope_scaling, rope_theta, d, dim)
                rotary.steps(frequencies, step_c, step_s, BLOCK, rope_scale, half)
                rotary.angles(frequencies, c, s, 0, T.Cast("float32", positions[b]) * rope_scale, half)
                for g in T.serial(together):
                    for d in T.serial(half):
                        spare[0] = query[g, d]
                        query[g, d] = spare[0] * c[0, d] - query[g, half + d] * s[0, d]
                        query[g, half + d] = query[g, half + d] * c[0, d] + spare[0] * s[0, d]
            for block in T.serial(first_block(lowest(positions[b], key_start[b], scale)), (count + BLOCK - 1) // BLOCK):
                find_block(
                    PagedSource(pages, page_table, first, b, lengths, sliding, page, slot, h // group),
                    page,
                    slot,
                    block * BLOCK,
                    count,
                    BLOCK,
                )
                if (block + 1) * BLOCK < count:
                    ask_for_block(
                        PagedSource(pages, page_table, first, b, lengths, sliding, page, slot, h // group),
                        (block + 1) * BLOCK,
                        count,
                        dim,
                        line,
                    )
                if rotary.turns(rope_scaling, rotary_mode):
                    rotary.advance(
                        frequencies,
                        c,
                        s,
                        step_c,
                        step_s,
                        spare,
                        block,
                        BLOCK,
                        T.Cast("float32", key_start[b] + block * BLOCK) * rope_scale,
                        half,
                    )
                    rotate_keys(
                        PagedSource(pages, page_table, first, b, lengths, sliding, page, slot, h // group),
                        tile,
                        c,
                        s,
                        step_c,
                        step_s,
                        at,
                        BLOCK,
                        dim,
                    )
                    score_block(query, TileSource(tile), scores, sums, together, dim)
                else:
                    score_block(
                        query,
                        PagedSource(pages, page_table, first, b, lengths, sliding, page, slot, h // group),
                        scores,
                        sums,
                        together,
                        dim,
                    )
                if softcap is not None:
                    cap(scores, together, softcap)
                for g in T.unroll(together):
                    weigh(scores, state, g, block * BLOCK, lowest(positions[b], key_start[b], scale), count)
                add_values(
                    PagedSource(pages, page_table, first, b, lengths, sliding, page, slot, h // group),
                    scores,
                    total,
                    sums,
                    state,
                    together,
                    dim,
                )
            for g in T.serial(together):
                for p in T.serial(dim // LANES):
                    for j in T.vectorized(LANES):
                        output[b, h + g, p * LANES + j] = T.Cast(dtype, total[g, p * LANES + j] / state[g, 1])
                lse[b, h + g] = state[g, 0] + T.log2(state[g, 1])

    return attention_decode
