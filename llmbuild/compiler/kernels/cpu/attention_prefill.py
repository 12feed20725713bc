"""CPU attention of many queries: over the keys of the same step (ragged) and over the paged cache.

The queries of the heads that share keys are the rows of a matrix.  Up to 48 rows go together through blocks of 32
keys: the block's keys are transposed once, scores and weighted values are register-tile products as in the linear
layers, and the online softmax joins the blocks.  Blocks of rows of all shared heads are spread over threads, early and
late ones alternating, because with a causal mask later rows see more keys.  A layer with a window begins with the block of
the first key that any of the rows sees.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tvm.script import tirx as T

from llmbuild.compiler.kernels.cpu import rotary
from llmbuild.compiler.kernels.cpu.attention import (
    PAGE_SIZE,
    PagedSource,
    RaggedSource,
    find_block,
    held,
    lengths_shape,
    rotate_keys,
)
from llmbuild.compiler.kernels.cpu.attention_tiles import BLOCK, add_value_tiles, score_tiles, transpose_keys, weigh_row
from llmbuild.compiler.kernels.cpu.online_softmax import LOG2_E, LOWEST
from llmbuild.compiler.kernels.cpu.tile import LANES, TILE_ROWS, f32
from llmbuild.compiler.kernels.scores import capped, first_visible, magnitude

ROWS = 8 * TILE_ROWS


def task_block(local: Any, blocks: Any) -> Any:
    """The block of rows of a head's task: 0, n - 1, 1, n - 2, … so that neighbours have equal work together."""
    return T.if_then_else(local % 2 == 0, local // 2, blocks - 1 - local // 2)


@T.macro
def place_task(place, task, blocks):
    """place[0] = the head of a task, place[1] = the first of its rows; the numbers of queries and keys follow.

    They are stored, for TVM writes a value that has only a name out wherever the name stands, and then takes seconds to
    compile the divisions.
    """
    place[0] = task // blocks
    place[1] = task_block(task % blocks, blocks) * ROWS


def last_key(causal: Any, row: Any, keys: Any, queries: Any) -> Any:
    """One past the last key that query `row` of a sequence sees."""
    return T.if_then_else(causal > 0, T.min(keys, keys - queries + row + 1), keys)


def first_key(positions: Any, query: Any, key_position: Any, window: int | None, scale: Any) -> Any:
    """The first key that a query sees."""
    return T.int32(0) if window is None else first_visible(positions[query], key_position, window, scale)


def first_block(window: int | None) -> Any:
    """The place of the number of the first block that is visited, which is 0 where no layer has a window."""
    return (0,) if window is None else T.alloc_buffer((1,), "int32", scope="global")


@T.macro
def find_first_block(first, positions, begin, end, count, key_position, window, scale):
    """first[0] = the block of the first key that one of the queries begin to end - 1 sees, whose positions need not ascend
    (a tree of drafts)."""
    first[0] = count
    for query in T.serial(begin, end):
        first[0] = T.min(first[0], first_key(positions, query, key_position, window, scale))
    first[0] = first[0] // BLOCK


@T.macro
def cap_tile(scores, rows, softcap):
    for r in T.serial(rows):
        for p in T.unroll(BLOCK // LANES):
            for j in T.vectorized(LANES):
                scores[r, p * LANES + j] = capped(scores[r, p * LANES + j], softcap)


@T.macro
def load_queries(
    q, query, positions, frequencies, c, s, spare, rope, start, rows, limit, head, group, begin, factor, dim
):
    """query[rows, dim] = rows of one group of heads, scaled, and with RoPE where `rope` is a scale above zero.

    Row r of a group is head r % group of query r // group; the last row stands for those past the limit.
    """
    for r in T.serial(rows):
        item: T.let[T.int32] = T.min(start + r, limit - 1)
        for p in T.serial(dim // LANES):
            for j in T.vectorized(LANES):
                query[r, p * LANES + j] = (
                    f32(q[begin + item // group, head * group + item % group, p * LANES + j]) * factor
                )
        if rope > T.float32(0):
            rotary.angles(frequencies, c, s, 0, T.Cast("float32", positions[begin + item // group]) * rope, dim // 2)
            for d in T.serial(dim // 2):
                spare[0] = query[r, d]
                query[r, d] = spare[0] * c[0, d] - query[r, dim // 2 + d] * s[0, d]
                query[r, dim // 2 + d] = query[r, dim // 2 + d] * c[0, d] + spare[0] * s[0, d]


@T.macro
def copy_block(source, tile, part, size, dim):
    """tile[size, dim] = the keys (part 0) or values (part 1) of a block."""
    for i in T.serial(size):
        for p in T.serial(dim // LANES):
            for j in T.vectorized(LANES):
                tile[i, p * LANES + j] = source.key(i, p * LANES + j) if part == 0 else source.value(i, p * LANES + j)


@T.macro
def attend(
    source,
    q,
    positions,
    output,
    lse,
    page,
    slot,
    begin,
    queries,
    count,
    key_position,
    start,
    head,
    group,
    dim,
    dtype,
    window,
    softcap,
    causal,
    rotary_mode,
    rope_scale,
    rope_theta,
    rope_scaling,
    scale,
):
    """Rows start to start + ROWS of one group of heads of one sequence, over its `count` keys."""
    query = T.alloc_buffer((ROWS, dim), "float32", scope="global")
    total = T.alloc_buffer((ROWS, dim), "float32", scope="global")
    scores = T.alloc_buffer((ROWS, BLOCK), "float32", scope="global")
    tile = T.alloc_buffer((BLOCK, dim), "float32", scope="global")
    keys = T.alloc_buffer((dim, BLOCK), "float32", scope="global")
    biggest = T.alloc_buffer((ROWS,), "float32", scope="global")
    weight = T.alloc_buffer((ROWS,), "float32", scope="global")
    rescale = T.alloc_buffer((ROWS,), "float32", scope="global")
    lanes = T.alloc_buffer((1, LANES), "float32", scope="global")
    square = T.alloc_buffer((LANES, LANES), "float32", scope="global")
    acc = T.alloc_buffer((TILE_ROWS, 2, LANES), "float32", scope="global")
    frequencies = T.alloc_buffer((dim // 2,), "float32", scope="global")
    c = T.alloc_buffer((1, dim // 2), "float32", scope="global")
    s = T.alloc_buffer((1, dim // 2), "float32", scope="global")
    at = T.alloc_buffer((2, LANES), "float32", scope="global")
    spare = T.alloc_buffer((LANES,), "float32", scope="global")
    step_c = T.alloc_buffer((BLOCK + 1, dim // 2), "float32", scope="global")
    step_s = T.alloc_buffer((BLOCK + 1, dim // 2), "float32", scope="global")
    limit: T.let[T.int32] = queries * group
    rows: T.let[T.int32] = T.min(limit - start, ROWS)
    tiles: T.let[T.int32] = (rows + TILE_ROWS - 1) // TILE_ROWS
    if rotary.turns(rope_scaling, rotary_mode):
        for d in T.serial(dim // 2):
            frequencies[d] = rotary.frequency(rope_scaling, rope_theta, d, dim)
        rotary.steps(frequencies, step_c, step_s, BLOCK, rope_scale, dim // 2)
    load_queries(
        q,
        query,
        positions,
        frequencies,
        c,
        s,
        spare,
        rotary.scale_of(rope_scaling, rotary_mode, rope_scale),
        start,
        tiles * TILE_ROWS,
        limit,
        head,
        group,
        begin,
        magnitude(scale, window) * T.float32(LOG2_E),
        dim,
    )
    for r in T.serial(tiles * TILE_ROWS):
        biggest[r] = T.float32(LOWEST)
        weight[r] = T.float32(1)
        for p in T.serial(dim // LANES):
            for j in T.vectorized(LANES):
                total[r, p * LANES + j] = T.float32(0)
    first = T.meta_var(first_block(window))
    if window is not None:
        find_first_block(
            first,
            positions,
            begin + start // group,
            begin + (start + rows - 1) // group + 1,
            count,
            key_position,
            window,
            scale,
        )
    for block in T.serial(
        first[0], (T.max(last_key(causal, (start + rows - 1) // group, count, queries), 0) + BLOCK - 1) // BLOCK
    ):
        find_block(source, page, slot, block * BLOCK, count, BLOCK)
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
                T.Cast("float32", key_position + block * BLOCK) * rope_scale,
                dim // 2,
            )
            rotate_keys(source, tile, c, s, step_c, step_s, at, BLOCK, dim)
        else:
            copy_block(source, tile, 0, BLOCK, dim)
        transpose_keys(tile, keys, square, dim)
        score_tiles(query, keys, scores, acc, tiles, dim)
        if softcap is not None:
            cap_tile(scores, tiles * TILE_ROWS, softcap)
        for r in T.serial(tiles * TILE_ROWS):
            row: T.let[T.int32] = T.min(start + r, limit - 1) // group
            weigh_row(
                scores,
                biggest,
                weight,
                rescale,
                lanes,
                r,
                block * BLOCK,
                first_key(positions, begin + row, key_position, window, scale),
                last_key(causal, row, count, queries),
            )
        copy_block(source, tile, 1, BLOCK, dim)
        add_value_tiles(scores, tile, total, rescale, acc, tiles, dim)
    for r in T.serial(rows):
        for p in T.serial(dim // LANES):
            for j in T.vectorized(LANES):
                output[begin + (start + r) // group, head * group + (start + r) % group, p * LANES + j] = T.Cast(
                    dtype, total[r, p * LANES + j] / weight[r]
                )
        lse[begin + (start + r) // group, head * group + (start + r) % group] = biggest[r] + T.log2(weight[r])


def ragged_kernel(
    heads: int,
    kv_heads: int,
    dim: int,
    dtype: str,
    rope_scaling: Mapping[str, Any] | None,
    window: int | None = None,
    softcap: float | None = None,
) -> Any:
    """The kernel over keys and values of the same step, with the signature of TVM's `_attention_prefill_ragged_cpu`."""
    group = heads // kv_heads

    @T.prim_func(private=True, s_tir=True)
    def attention_ragged(
        q_handle: T.handle,
        q_begins_handle: T.handle,
        k_handle: T.handle,
        v_handle: T.handle,
        k_begins_handle: T.handle,
        positions_handle: T.handle,
        key_start_handle: T.handle,
        output_handle: T.handle,
        lse_handle: T.handle,
        causal: T.int32,
        rotary_mode: T.int32,
        rope_scale: T.float32,
        rope_theta: T.float32,
        scale: T.float32,
    ) -> None:
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
        batch = T.int32()
        q_rows = T.int32()
        k_rows = T.int32()
        offset_1 = T.int32()
        offset_2 = T.int32()
        offset_3 = T.int32()
        offset_4 = T.int32()
        q = T.match_buffer(q_handle, (q_rows, heads, dim), dtype)
        q_begins = T.match_buffer(q_begins_handle, (batch + 1,), "int32", elem_offset=offset_1)
        k = T.match_buffer(k_handle, (k_rows, kv_heads, dim), dtype)
        v = T.match_buffer(v_handle, (k_rows, kv_heads, dim), dtype)
        k_begins = T.match_buffer(k_begins_handle, (batch + 1,), "int32", elem_offset=offset_2)
        positions = T.match_buffer(positions_handle, (q_rows,), "int32", elem_offset=offset_3)
        key_start = T.match_buffer(key_start_handle, (batch,), "int32", elem_offset=offset_4)
        output = T.match_buffer(output_handle, (q_rows, heads, dim), dtype)
        lse = T.match_buffer(lse_handle, (q_rows, heads), "float32")
        for b in T.serial(batch):
            for task in T.parallel(kv_heads * (((q_begins[b + 1] - q_begins[b]) * group + ROWS - 1) // ROWS)):
                page = T.alloc_buffer((BLOCK,), "int32", scope="global")
                slot = T.alloc_buffer((BLOCK,), "int32", scope="global")
                place = T.alloc_buffer((4,), "int32", scope="global")
                place[2] = q_begins[b + 1] - q_begins[b]
                place[3] = k_begins[b + 1] - k_begins[b]
                place_task(place, task, (place[2] * group + ROWS - 1) // ROWS)
                attend(
                    RaggedSource(k, v, k_begins[b], page, place[0]),
                    q,
                    positions,
                    output,
                    lse,
                    page,
                    slot,
                    q_begins[b],
                    place[2],
                    place[3],
                    key_start[b],
                    place[1],
                    place[0],
                    group,
                    dim,
                    dtype,
                    window,
                    softcap,
                    causal,
                    rotary_mode,
                    rope_scale,
                    rope_theta,
                    rope_scaling,
                    scale,
                )

    return attention_ragged


def paged_kernel(
    heads: int,
    kv_heads: int,
    dim: int,
    dtype: str,
    sliding: bool,
    rope_scaling: Mapping[str, Any] | None,
    window: int | None = None,
    softcap: float | None = None,
) -> Any:
    """The kernel over the paged cache, with the signature of TVM's `_attention_prefill_cpu`.

    `sliding` is for a rolling cache, which has no layers with a `window`.  Without `rope_scaling` q and k come turned.
    """
    group = heads // kv_heads

    @T.prim_func(private=True, s_tir=True)
    def attention_paged(
        q_handle: T.handle,
        q_begins_handle: T.handle,
        pages_handle: T.handle,
        page_begins_handle: T.handle,
        page_table_handle: T.handle,
        lengths_handle: T.handle,
        key_start_handle: T.handle,
        positions_handle: T.handle,
        output_handle: T.handle,
        lse_handle: T.handle,
        causal: T.int32,
        rotary_mode: T.int32,
        rope_scale: T.float32,
        rope_theta: T.float32,
        scale: T.float32,
    ) -> None:
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
        batch = T.int32()
        q_rows = T.int32()
        page_count = T.int32()
        table_size = T.int32()
        offset_1 = T.int32()
        offset_2 = T.int32()
        offset_3 = T.int32()
        offset_4 = T.int32()
        offset_5 = T.int32()
        offset_6 = T.int32()
        q = T.match_buffer(q_handle, (q_rows, heads, dim), dtype)
        q_begins = T.match_buffer(q_begins_handle, (batch + 1,), "int32", elem_offset=offset_1)
        pages = T.match_buffer(pages_handle, (page_count, 2, kv_heads, PAGE_SIZE, dim), dtype)
        page_begins = T.match_buffer(page_begins_handle, (batch + 1,), "int32", elem_offset=offset_2)
        page_table = T.match_buffer(page_table_handle, (table_size,), "int32", elem_offset=offset_3)
        key_start = T.match_buffer(key_start_handle, (batch,), "int32", elem_offset=offset_4)
        positions = T.match_buffer(positions_handle, (q_rows,), "int32", elem_offset=offset_5)
        output = T.match_buffer(output_handle, (q_rows, heads, dim), dtype)
        lse = T.match_buffer(lse_handle, (q_rows, heads), "float32")
        lengths = T.match_buffer(lengths_handle, lengths_shape(batch, sliding), "int32", elem_offset=offset_6)
        for b in T.serial(batch):
            for task in T.parallel(kv_heads * (((q_begins[b + 1] - q_begins[b]) * group + ROWS - 1) // ROWS)):
                page = T.alloc_buffer((BLOCK,), "int32", scope="global")
                slot = T.alloc_buffer((BLOCK,), "int32", scope="global")
                place = T.alloc_buffer((4,), "int32", scope="global")
                place[2] = q_begins[b + 1] - q_begins[b]
                place_task(place, task, (place[2] * group + ROWS - 1) // ROWS)
                first: T.let[T.int32] = page_begins[b]
                place[3] = held(first, page_begins[b + 1], b, lengths, sliding)
                attend(
                    PagedSource(pages, page_table, first, b, lengths, sliding, page, slot, place[0]),
                    q,
                    positions,
                    output,
                    lse,
                    page,
                    slot,
                    q_begins[b],
                    place[2],
                    place[3],
                    key_start[b],
                    place[1],
                    place[0],
                    group,
                    dim,
                    dtype,
                    window,
                    softcap,
                    causal,
                    rotary_mode,
                    rope_scale,
                    rope_theta,
                    rope_scaling,
                    scale,
                )

    return attention_paged
