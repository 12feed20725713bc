"""ARM's dot products (FEAT_DotProd, in most cores since ARMv8.2): sums of four products of bytes are added to words by one
instruction.  Halves are multiplied by NEON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tvm.script import tirx as T

from llmbuild.compiler.kernels.cpu.instructions.instructions import Parts
from llmbuild.compiler.kernels.cpu.instructions.neon import Neon, joined, piece
from llmbuild.compiler.kernels.cpu.tile import LANES
from llmbuild.compiler.levels.aarch64 import DOTPROD
from llmbuild.compiler.levels.level import Level

QUARTER = 4
"""Words of a register: those of a group."""


@dataclass(frozen=True, slots=True)
class DotProduct:
    """See `Instructions`."""

    level: Level = DOTPROD
    words: int = 2 * LANES
    """Four groups, each a lane in the end: then what follows is done once for all four."""
    lanes: int = 4
    outputs: int = 2
    side: int = 1
    tile_rows: int = 4
    """4 x 4 vectors of sums leave 16 of 32 registers for operands."""
    tile_words: int = LANES
    passes: int = 1
    unfinished: tuple[str, int] = ("int32", LANES)

    @property
    def features(self) -> tuple[str, ...]:
        return self.level.features

    def unpacked(self, words: Any, count: int) -> tuple[Any, Any]:
        return Neon().unpacked(words, count)

    def add_bytes(self, start: Any | None, parts: Parts) -> Any:
        groups = []
        for group in range(self.words // QUARTER):
            sums = T.broadcast(T.int32(0), QUARTER)
            for weights, x in parts:
                sums = _add_bytes(sums, weights, x, self.words, group)
            groups.append(sums)
        found = _pairs(_pairs(groups[0], groups[1]), _pairs(groups[2], groups[3]))
        return found if start is None else start + found

    def add_halves(self, start: Any | None, parts: Parts) -> Any:
        return Neon().add_halves(start, parts)

    def add_unfinished(self, sums: Any, weights: Any, x: Any) -> Any:
        halves = [
            _add_bytes(piece(sums, QUARTER, half), weights, x, LANES, half)
            for half in range(self.tile_words // QUARTER)
        ]
        return joined(halves, QUARTER)

    def finished(self, sums: Any) -> Any:
        return sums


def _add_bytes(sums: Any, weights: Any, x: Any, words: int, index: int) -> Any:
    """Four words and the products of the bytes of piece `index` of vectors of so many words."""
    numbers = (piece(T.reinterpret(f"int8x{4 * words}", values), 4 * QUARTER, index) for values in (weights, x))
    return T.call_llvm_pure_intrin("int32x4", "llvm.aarch64.neon.sdot.v4i32.v16i8", sums, *numbers)


def _pairs(one: Any, other: Any) -> Any:
    """The sums of neighbours in both: int32x4."""
    return T.call_llvm_pure_intrin("int32x4", "llvm.aarch64.neon.addp.v4i32", one, other)
