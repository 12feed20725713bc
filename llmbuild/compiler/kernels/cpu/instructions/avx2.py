"""AVX2: products of unsigned bytes with signed ones come added in pairs of 16 bits, products of 16 bits in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tvm.script import tirx as T

from llmbuild.compiler.kernels.cpu.instructions.instructions import Parts
from llmbuild.compiler.kernels.cpu.tile import LANES


@dataclass(frozen=True, slots=True)
class Avx2:
    """See `Instructions`."""

    level: None = None
    features: tuple[str, ...] = ("avx2",)
    words: int = LANES
    lanes: int = LANES
    outputs: int = 1
    """Column by column, so that the memory's own prefetch follows."""
    side: int = 1
    tile_rows: int = 4
    """4 x 2 vectors of sums leave 8 of 16 registers for operands."""
    tile_words: int = LANES
    passes: int = 1
    unfinished: tuple[str, int] = ("int16", 2 * LANES)
    """Of a group, a sum of 16 bits has eight pairs of at most 2 x 15 x 127."""

    def unpacked(self, words: Any, count: int) -> tuple[Any, Any]:
        return unpacked(words, count)

    def add_bytes(self, start: Any | None, parts: Parts) -> Any:
        sums = _pairs(*parts[0])
        for weights, x in parts[1:]:
            sums = self.add_unfinished(sums, weights, x)
        return self.finished(sums) if start is None else start + self.finished(sums)

    def add_halves(self, start: Any | None, parts: Parts) -> Any:
        for weights, x in parts:
            product = _in_words(T.reinterpret("int16x16", weights), T.reinterpret("int16x16", x))
            start = product if start is None else start + product
        return start

    def add_unfinished(self, sums: Any, weights: Any, x: Any) -> Any:
        return sums + _pairs(weights, x)

    def finished(self, sums: Any) -> Any:
        return _in_words(sums, T.broadcast(T.int16(1), 2 * LANES))


def unpacked(words: Any, count: int) -> tuple[Any, Any]:
    """The even and the odd numbers of 4 bits of words: there are no shifts of bytes."""
    mask = T.broadcast(T.uint32(0x0F0F0F0F), count)
    return T.bitwise_and(words, mask), T.bitwise_and(T.shift_right(words, T.broadcast(T.uint32(4), count)), mask)


def _pairs(weights: Any, x: Any) -> Any:
    return T.call_llvm_pure_intrin(
        "int16x16", "llvm.x86.avx2.pmadd.ub.sw", T.reinterpret("uint8x32", weights), T.reinterpret("int8x32", x)
    )


def _in_words(one: Any, other: Any) -> Any:
    return T.call_llvm_pure_intrin("int32x8", "llvm.x86.avx2.pmadd.wd", one, other)
