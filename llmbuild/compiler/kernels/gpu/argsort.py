"""Sort each row of a matrix in descending order, with the indices: a merge sort, for any number of columns.

One launch sorts tiles of 1,024 in shared memory (a bitonic network on (key, index), Batcher 1968); then each launch merges
pairs of sorted runs, twice as long each time: a thread takes one element and finds its place in the other run by a binary
search.  A vocabulary of 49,152 takes 7 launches, one of 151,936 takes 9.  Runs go back and forth between the result and a
spare copy; which is first depends on the number of merges, so that the last writes the result.

Elements are ordered by a total order on float32 (that of IEEE 754, but the zeros are equal) and then by index.  So the sort
is stable, and whatever the input, NaN too, the indices are a permutation: no place is written twice or never.
"""

from __future__ import annotations

from typing import Any

from tvm.script import tirx as T

from llmbuild.compiler.kernels.gpu.block import THREADS, blocks

TILE_BITS = 10
TILE = 1 << TILE_BITS
"""Elements that a block sorts, four a thread: 8 KiB of keys and indices."""

MAX_MERGES = 20
"""Enough for a billion columns."""

PADDING = -(2**31) + 1
"""Below every key.  (The lowest int32 itself is no literal of WGSL.)"""


def ordered(value: Any) -> Any:
    """The float32 expression as an int32 that compares in the same way."""
    bits = T.reinterpret("int32", value)
    flipped = T.bitwise_xor(bits, T.bitwise_and(T.shift_right(bits, 31), T.int32(0x7FFFFFFF)))
    return T.Select(value == T.float32(0), T.int32(0), T.max(flipped, T.int32(PADDING + 1)))


def unordered(key: Any) -> Any:
    """The float32 that `ordered` came from."""
    return T.reinterpret("float32", T.bitwise_xor(key, T.bitwise_and(T.shift_right(key, 31), T.int32(0x7FFFFFFF))))


def first_of_pair(pair: Any, stride: Any) -> Any:
    """The lower place of a pair of places that are `stride` (a power of two) apart, the pairs being numbered."""
    return pair * 2 - T.bitwise_and(pair, stride - 1)


def merges(columns: Any) -> Any:
    """The number of merges after the tiles are sorted: the runs of 1,024 * 2^p that are shorter than a row."""
    # This is the number of bits of the last tile's number.  TVM leaves clz of 0 undefined, so a bit is set below.
    tile = T.shift_right(columns - 1, TILE_BITS)
    return 31 - T.Cast("int32", T.clz(T.bitwise_or(T.shift_left(tile, 1), 1)))


@T.macro
def sort_tiles(source, values, indices, rows, columns):
    """values, indices = each tile of 1,024 columns of source in order."""
    for by in T.thread_binding(rows, "blockIdx.y"):
        for bx in T.thread_binding(blocks(columns, TILE), "blockIdx.x"):
            for tx in T.thread_binding(THREADS, "threadIdx.x"):
                keys = T.alloc_buffer((TILE,), "int32", scope="shared")
                order = T.alloc_buffer((TILE,), "int32", scope="shared")
                held = T.alloc_buffer((2, 4), "int32", scope="local")
                for i in T.unroll(TILE // THREADS):
                    # What pads the last tile has the lowest key and the highest indices: it ends up last.
                    keys[i * THREADS + tx] = T.if_then_else(
                        bx * TILE + i * THREADS + tx < columns,
                        ordered(source[by, bx * TILE + i * THREADS + tx]),
                        T.int32(PADDING),
                    )
                    order[i * THREADS + tx] = bx * TILE + i * THREADS + tx
                for stage in T.serial(TILE_BITS):
                    for step in T.serial(stage + 1):
                        T.tvm_storage_sync("shared")
                        stride: T.let[T.int32] = T.shift_left(1, stage - step)
                        # Both pairs are read before either is written: TVM adds one barrier between the two.
                        for i in T.unroll(2):
                            held[i, 0] = keys[first_of_pair(i * THREADS + tx, stride)]
                            held[i, 1] = keys[first_of_pair(i * THREADS + tx, stride) + stride]
                            held[i, 2] = order[first_of_pair(i * THREADS + tx, stride)]
                            held[i, 3] = order[first_of_pair(i * THREADS + tx, stride) + stride]
                        for i in T.unroll(2):
                            first: T.let[T.int32] = first_of_pair(i * THREADS + tx, stride)
                            # Every other sequence of a stage is sorted backwards, as the network wants.
                            forwards: T.let[T.bool] = T.bitwise_and(T.shift_right(first, stage + 1), 1) == 0
                            precedes: T.let[T.bool] = held[i, 1] > held[i, 0] or (
                                held[i, 1] == held[i, 0] and held[i, 3] < held[i, 2]
                            )
                            swap: T.let[T.bool] = T.Select(forwards, precedes, T.Not(precedes))
                            keys[first] = T.Select(swap, held[i, 1], held[i, 0])
                            keys[first + stride] = T.Select(swap, held[i, 0], held[i, 1])
                            order[first] = T.Select(swap, held[i, 3], held[i, 2])
                            order[first + stride] = T.Select(swap, held[i, 2], held[i, 3])
                T.tvm_storage_sync("shared")
                for i in T.unroll(TILE // THREADS):
                    if bx * TILE + i * THREADS + tx < columns:
                        values[by, bx * TILE + i * THREADS + tx] = unordered(keys[i * THREADS + tx])
                        indices[by, bx * TILE + i * THREADS + tx] = order[i * THREADS + tx]


@T.macro
def merge_runs(source, source_indices, values, indices, rows, columns, p):
    """values, indices = the source's runs of 1,024 * 2^p columns, merged in pairs."""
    for by in T.thread_binding(rows, "blockIdx.y"):
        for bx in T.thread_binding(blocks(columns), "blockIdx.x"):
            for tx in T.thread_binding(THREADS, "threadIdx.x"):
                low = T.alloc_buffer((1,), "int32", scope="local")
                high = T.alloc_buffer((1,), "int32", scope="local")
                at: T.let[T.int32] = bx * THREADS + tx
                if at < columns:
                    run: T.let[T.int32] = T.shift_right(at, p + TILE_BITS)
                    other: T.let[T.int32] = T.shift_left(T.bitwise_xor(run, 1), p + TILE_BITS)
                    key: T.let[T.int32] = ordered(source[by, at])
                    low[0] = T.min(other, columns)
                    high[0] = T.min(other + T.shift_left(TILE, p), columns)
                    for _step in T.serial(p + (TILE_BITS + 1)):
                        if low[0] < high[0]:
                            middle: T.let[T.int32] = T.shift_right(low[0] + high[0], 1)
                            found: T.let[T.int32] = ordered(source[by, middle])
                            # Of equal keys the left run's come first: theirs are the lower indices.
                            if found > key or (found == key and T.bitwise_and(run, 1) == 1):
                                low[0] = middle + 1
                            else:
                                high[0] = middle
                    # Its place in its own run, and after those of the other run that precede it.
                    place: T.let[T.int32] = (
                        T.shift_left(T.shift_right(run, 1), p + (TILE_BITS + 1))
                        + (at - T.shift_left(run, p + TILE_BITS))
                        + (low[0] - T.min(other, columns))
                    )
                    values[by, place] = source[by, at]
                    indices[by, place] = source_indices[by, at]


def argsort_kernel() -> Any:
    """(source[r, n], values[r, n], indices[r, n] int32, spare values[r, n], spare indices[r, n] int32); the content of the
    spare buffers afterwards has no meaning."""

    @T.prim_func(private=True, s_tir=True)
    def argsort(
        source_handle: T.handle,
        values_handle: T.handle,
        indices_handle: T.handle,
        spare_values_handle: T.handle,
        spare_indices_handle: T.handle,
    ) -> None:
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
        rows = T.int32()
        columns = T.int32()
        source = T.match_buffer(source_handle, (rows, columns), "float32")
        values = T.match_buffer(values_handle, (rows, columns), "float32")
        indices = T.match_buffer(indices_handle, (rows, columns), "int32")
        spare_values = T.match_buffer(spare_values_handle, (rows, columns), "float32")
        spare_indices = T.match_buffer(spare_indices_handle, (rows, columns), "int32")
        # These loops run on the host, around launches.  The inner ones are conditions: within an `if`, TVM's pass for
        # barriers would refuse to place one.
        for _even in T.serial(1 - merges(columns) % 2):
            sort_tiles(source, values, indices, rows, columns)
        for _odd in T.serial(merges(columns) % 2):
            sort_tiles(source, spare_values, spare_indices, rows, columns)
        for p in T.serial(MAX_MERGES):
            for _even in T.serial(T.Select(p < merges(columns), 1 - (merges(columns) - p) % 2, 0)):
                merge_runs(values, indices, spare_values, spare_indices, rows, columns, p)
            for _odd in T.serial(T.Select(p < merges(columns), (merges(columns) - p) % 2, 0)):
                merge_runs(spare_values, spare_indices, values, indices, rows, columns, p)

    return argsort
