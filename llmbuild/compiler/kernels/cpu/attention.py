"""Common parts of the attention kernels for the CPU."""

from __future__ import annotations

from typing import Any

from tvm.script import tirx as T

from llmbuild.compiler.kernels.cpu.tile import LANES, ask_for, f32

PAGE_SIZE = 16
"""Positions a page of the cache."""


def held(begin: Any, end: Any, sequence: Any, lengths: Any, sliding: bool) -> Any:
    """How many positions of a sequence with pages begin to end are in the cache: sinks and window where it slides."""
    size = (end - begin - 1) * PAGE_SIZE + (lengths[0, sequence] if sliding else lengths[sequence])
    if sliding:
        size = size - lengths[1, sequence] + lengths[2, sequence]
    return T.if_then_else(begin != end, size, 0)


def stored_at(position: Any, sequence: Any, lengths: Any, sliding: bool) -> Any:
    """The slot in the sequence's pages of the position (counted among the cached ones): a gap follows the sinks."""
    if not sliding:
        return position
    return T.if_then_else(
        position < lengths[2, sequence], position, position - lengths[2, sequence] + lengths[1, sequence]
    )


def lengths_shape(batch: Any, sliding: bool) -> tuple[Any, ...]:
    """`length_info`: used slots of the last page; with a sliding window also the window's offset and the sinks' number."""
    return (3, batch) if sliding else (batch,)


class PagedSource:
    """Keys and values of one head of one sequence in the paged cache.

    `page` and `slot` list where the positions of the current block lie, as `page_of` and `slot_of` compute them.
    """

    def __init__(
        self,
        pages: Any,
        table: Any,
        first: Any,
        sequence: Any,
        lengths: Any,
        sliding: bool,
        page: Any,
        slot: Any,
        head: Any,
    ) -> None:
        self.pages, self.table, self.first, self.sequence = pages, table, first, sequence
        self.lengths, self.sliding = lengths, sliding
        self.page, self.slot, self.head = page, slot, head

    def page_of(self, position: Any) -> Any:
        where = stored_at(position, self.sequence, self.lengths, self.sliding)
        return self.table[self.first + where // PAGE_SIZE]

    def slot_of(self, position: Any) -> Any:
        return stored_at(position, self.sequence, self.lengths, self.sliding) % PAGE_SIZE

    def key(self, i: Any, d: Any) -> Any:
        """Element d of the key at position i of the block, in float32."""
        return f32(self.pages[self.page[i], 0, self.head, self.slot[i], d])

    def value(self, i: Any, d: Any) -> Any:
        return f32(self.pages[self.page[i], 1, self.head, self.slot[i], d])

    def ask(self, position: Any, value: Any, d: Any) -> Any:
        """A prefetch of element d of the key (value = 0) or the value (1) at a position of the sequence."""
        return ask_for(self.pages, self.page_of(position), value, self.head, self.slot_of(position), d)


class RaggedSource:
    """Keys and values of one head of a sequence whose rows begin at `first` of plain tensors [rows, heads, dim]."""

    def __init__(self, k: Any, v: Any, first: Any, page: Any, head: Any) -> None:
        self.k, self.v, self.first, self.page, self.head = k, v, first, page, head

    def page_of(self, position: Any) -> Any:
        return self.first + position

    def slot_of(self, position: Any) -> Any:  # noqa: ARG002
        return T.int32(0)

    def key(self, i: Any, d: Any) -> Any:
        return f32(self.k[self.page[i], self.head, d])

    def value(self, i: Any, d: Any) -> Any:
        return f32(self.v[self.page[i], self.head, d])


class TileSource:
    """Keys that were copied: a tile [positions, dim] of float32."""

    def __init__(self, tile: Any) -> None:
        self.tile = tile

    def key(self, i: Any, d: Any) -> Any:
        return self.tile[i, d]


@T.macro
def find_block(source, page, slot, start, count, size):
    """Where a block's positions lie.  Past the end it is the last one again, whose weight will be zero: what lies in
    memory there may be no number at all."""
    for i in T.serial(size):
        page[i] = source.page_of(T.min(start + i, count - 1))
        slot[i] = source.slot_of(T.min(start + i, count - 1))


@T.macro
def rotate_keys(source, tile, c, s, step_c, step_s, at, size, dim):
    """tile[size, dim] = the keys with RoPE; (c, s) are the angles of the first one, step those of each after it."""
    for i in T.serial(size):
        for p in T.serial(dim // 2 // LANES):
            for j in T.vectorized(LANES):
                at[0, j] = (
                    c[0, p * LANES + j] * step_c[i, p * LANES + j] - s[0, p * LANES + j] * step_s[i, p * LANES + j]
                )
            for j in T.vectorized(LANES):
                at[1, j] = (
                    s[0, p * LANES + j] * step_c[i, p * LANES + j] + c[0, p * LANES + j] * step_s[i, p * LANES + j]
                )
            for j in T.vectorized(LANES):
                tile[i, p * LANES + j] = (
                    source.key(i, p * LANES + j) * at[0, j] - source.key(i, dim // 2 + p * LANES + j) * at[1, j]
                )
            for j in T.vectorized(LANES):
                tile[i, dim // 2 + p * LANES + j] = (
                    source.key(i, dim // 2 + p * LANES + j) * at[0, j] + source.key(i, p * LANES + j) * at[1, j]
                )
