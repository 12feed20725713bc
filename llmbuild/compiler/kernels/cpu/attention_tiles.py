"""The steps of CPU attention on a block of 32 keys, as products of register tiles: scores, weights, weighted values."""

from __future__ import annotations

from tvm.script import tirx as T

from llmbuild.compiler.kernels.cpu.online_softmax import LOWEST, exp2, lane_max
from llmbuild.compiler.kernels.cpu.tile import LANES, TILE_COLUMNS, TILE_ROWS, lane_sum

BLOCK = 32
"""Keys a step."""


@T.macro
def transpose_keys(tile, keys, square, dim):
    """keys[dim, 32] = tile[32, dim] transposed, by squares of 8."""
    for n in T.serial(BLOCK // LANES):
        for p in T.serial(dim // LANES):
            for r in T.unroll(LANES):
                for j in T.vectorized(LANES):
                    square[r, j] = tile[n * LANES + r, p * LANES + j]
            for i in T.unroll(LANES):
                for j in T.vectorized(LANES):
                    keys[p * LANES + i, n * LANES + j] = square[j, i]


@T.macro
def multiply_add(left, right, acc, tile, part, i):
    """Add left[rows of the tile, i] times right[i, columns of the part] to the accumulators [6, 2, 8]."""
    for m in T.unroll(TILE_ROWS):
        for h in T.unroll(2):
            for j in T.vectorized(LANES):
                acc[m, h, j] = (
                    acc[m, h, j] + left[tile * TILE_ROWS + m, i] * right[i, part * TILE_COLUMNS + h * LANES + j]
                )


@T.macro
def store(acc, out, tile, part):
    """out[rows of the tile, columns of the part] = the accumulators."""
    for m in T.unroll(TILE_ROWS):
        for h in T.unroll(2):
            for j in T.vectorized(LANES):
                out[tile * TILE_ROWS + m, part * TILE_COLUMNS + h * LANES + j] = acc[m, h, j]


@T.macro
def score_tiles(query, keys, scores, acc, tiles, dim):
    """scores[rows, 32] = query[rows, dim] @ keys[dim, 32]."""
    for tile in T.serial(tiles):
        for part in T.serial(BLOCK // TILE_COLUMNS):
            for m in T.unroll(TILE_ROWS):
                for h in T.unroll(2):
                    for j in T.vectorized(LANES):
                        acc[m, h, j] = T.float32(0)
            for d in T.serial(dim):
                multiply_add(query, keys, acc, tile, part, d)
            store(acc, scores, tile, part)


@T.macro
def add_value_tiles(scores, values, total, rescale, acc, tiles, dim):
    """total[rows, dim] = total * rescale[rows] + scores[rows, 32] @ values[32, dim]."""
    for tile in T.serial(tiles):
        for part in T.serial(dim // TILE_COLUMNS):
            for m in T.unroll(TILE_ROWS):
                for h in T.unroll(2):
                    for j in T.vectorized(LANES):
                        acc[m, h, j] = (
                            total[tile * TILE_ROWS + m, part * TILE_COLUMNS + h * LANES + j]
                            * rescale[tile * TILE_ROWS + m]
                        )
            for i in T.serial(BLOCK):
                multiply_add(scores, values, acc, tile, part, i)
            store(acc, total, tile, part)


@T.macro
def weigh_row(scores, biggest, weight, rescale, lanes, row, start, low, high):
    """A row of scores to weights; keys outside of [low, high) weigh nothing."""
    for j in T.vectorized(LANES):
        lanes[0, j] = T.float32(LOWEST)
    for p in T.unroll(BLOCK // LANES):
        for j in T.vectorized(LANES):
            lanes[0, j] = T.max(
                lanes[0, j],
                T.Select(
                    T.And(start + p * LANES + j >= low, start + p * LANES + j < high),
                    scores[row, p * LANES + j],
                    T.float32(LOWEST),
                ),
            )
    rescale[row] = biggest[row]
    biggest[row] = T.max(biggest[row], lane_max(lanes, 0))
    rescale[row] = exp2(rescale[row] - biggest[row])
    for j in T.vectorized(LANES):
        lanes[0, j] = T.float32(0)
    for p in T.unroll(BLOCK // LANES):
        for j in T.vectorized(LANES):
            scores[row, p * LANES + j] = T.Select(
                T.And(start + p * LANES + j >= low, start + p * LANES + j < high),
                exp2(T.min(scores[row, p * LANES + j] - biggest[row], T.float32(0))),
                T.float32(0),
            )
        for j in T.vectorized(LANES):
            lanes[0, j] = lanes[0, j] + scores[row, p * LANES + j]
    weight[row] = weight[row] * rescale[row] + lane_sum(lanes, 0)
