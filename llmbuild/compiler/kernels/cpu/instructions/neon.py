"""NEON as every 64-bit ARM CPU has it: products of eight bytes are sums of 16 bits to which further ones are added, products of
four halves such of 32 bits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any

from tvm import tirx
from tvm.script import tirx as T

from llmbuild.compiler.kernels.cpu.instructions.instructions import Parts
from llmbuild.compiler.kernels.cpu.tile import LANES


@dataclass(frozen=True, slots=True)
class Neon:
    """See `Instructions`."""

    level: None = None
    features: tuple[str, ...] = ("neon",)
    words: int = 2 * LANES
    """Four groups, each a lane in the end: then what follows is done once for all four."""
    lanes: int = 4
    outputs: int = 2
    side: int = 1
    tile_rows: int = 4
    """4 x 4 vectors of sums leave 16 of 32 registers for operands."""
    tile_words: int = LANES
    passes: int = 2
    unfinished: tuple[str, int] = ("int16", 4 * LANES)
    """Of a group, a sum of 16 bits has eight products of at most 15 x 127, and two such sums fit into 16 bits too."""

    def unpacked(self, words: Any, count: int) -> tuple[Any, Any]:
        numbers = T.reinterpret(f"uint8x{4 * count}", words)
        low = T.bitwise_and(numbers, T.broadcast(T.uint8(15), 4 * count))
        high = T.shift_right(numbers, T.broadcast(T.uint8(4), 4 * count))
        return T.reinterpret(f"uint32x{count}", low), T.reinterpret(f"uint32x{count}", high)

    def add_bytes(self, start: Any | None, parts: Parts) -> Any:
        """A sum of 16 bits has 16 products in the end, of at most 15 x 127."""
        groups = [
            _sum(_bytes(weights, x, self.words, 2 * group + half) for weights, x in parts for half in range(2))
            for group in range(4)
        ]
        return _from(start, _in_words(_pairs(_pairs(groups[0], groups[1]), _pairs(groups[2], groups[3]))))

    def add_halves(self, start: Any | None, parts: Parts) -> Any:
        groups = [
            _sum(_halves(weights, x, 2 * group + half) for weights, x in parts for half in range(2))
            for group in range(2)
        ]
        return _from(start, joined(groups, 4))

    def add_unfinished(self, sums: Any, weights: Any, x: Any) -> Any:
        return sums + joined([_bytes(weights, x, LANES, index) for index in range(4)], 8)

    def finished(self, sums: Any) -> Any:
        quarters = [piece(sums, 8, index) for index in range(4)]
        return joined([_in_words(_pairs(quarters[0], quarters[1])), _in_words(_pairs(quarters[2], quarters[3]))], 4)


def _from(start: Any | None, sums: Any) -> Any:
    return sums if start is None else start + sums


def _sum(products: Iterable[Any]) -> Any:
    return reduce(add, products)


def piece(values: Any, lanes: int, index: int) -> Any:
    """Piece number `index` of a vector, of so many lanes."""
    return tirx.Shuffle([values], [tirx.IntImm("int32", index * lanes + lane) for lane in range(lanes)])


def joined(pieces: Sequence[Any], lanes: int) -> Any:
    """One vector of pieces of so many lanes."""
    return tirx.Shuffle(pieces, [tirx.IntImm("int32", lane) for lane in range(len(pieces) * lanes)])


def _bytes(weights: Any, x: Any, words: int, index: int) -> Any:
    """The products of piece `index`, two words, of vectors of so many: int16x8."""
    numbers = (piece(T.reinterpret(f"int8x{4 * words}", values), 8, index) for values in (weights, x))
    return T.call_llvm_pure_intrin("int16x8", "llvm.aarch64.neon.smull.v8i16", *numbers)


def _halves(weights: Any, x: Any, index: int) -> Any:
    """The products of piece `index`, two words, of vectors of eight: int32x4."""
    numbers = (piece(T.reinterpret("int16x16", values), 4, index) for values in (weights, x))
    return T.call_llvm_pure_intrin("int32x4", "llvm.aarch64.neon.smull.v4i32", *numbers)


def _pairs(one: Any, other: Any) -> Any:
    """The sums of neighbours in both: int16x8."""
    return T.call_llvm_pure_intrin("int16x8", "llvm.aarch64.neon.addp.v8i16", one, other)


def _in_words(sums: Any) -> Any:
    """The sums of neighbours: int32x4."""
    return T.call_llvm_pure_intrin("int32x4", "llvm.aarch64.neon.saddlp.v4i32.v8i16", sums)
