"""VNNI: sums of four products of bytes, or of two of 16 bits, are added to words by one instruction.

A row at a time is bound by memory, so that vectors of 8 words do there, in which every sum is of the bits that AVX2's is.  CPUs
without AVX-512 have the instructions for vectors of 8 words alone (AVX-VNNI); with it a tile has those of 16.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tvm.script import tirx as T

from llmbuild.compiler.kernels.cpu.instructions.avx2 import unpacked
from llmbuild.compiler.kernels.cpu.instructions.instructions import Parts
from llmbuild.compiler.kernels.cpu.tile import LANES
from llmbuild.compiler.levels.level import Level
from llmbuild.compiler.levels.x86_64 import AVX512_VNNI, AVX_VNNI


@dataclass(frozen=True, slots=True)
class AvxVnni:
    """See `Instructions`."""

    level: Level = AVX_VNNI
    side: int = 1
    tile_rows: int = 4
    """4 x 2 vectors of sums leave 8 of 16 registers for operands."""
    tile_words: int = LANES
    words: int = LANES
    lanes: int = LANES
    outputs: int = 1
    """Column by column, so that the memory's own prefetch follows."""
    passes: int = 1

    @property
    def features(self) -> tuple[str, ...]:
        return self.level.features

    @property
    def unfinished(self) -> tuple[str, int]:
        return "int32", self.tile_words

    def unpacked(self, words: Any, count: int) -> tuple[Any, Any]:
        return unpacked(words, count)

    def add_bytes(self, start: Any | None, parts: Parts) -> Any:
        sums = T.broadcast(T.int32(0), LANES) if start is None else start
        for weights, x in parts:
            sums = _add_bytes(LANES, sums, weights, x)
        return sums

    def add_halves(self, start: Any | None, parts: Parts) -> Any:
        sums = T.broadcast(T.int32(0), LANES) if start is None else start
        for weights, x in parts:
            sums = T.call_llvm_pure_intrin(
                "int32x8",
                "llvm.x86.avx512.vpdpwssd.256",
                sums,
                T.reinterpret("int16x16", weights),
                T.reinterpret("int16x16", x),
            )
        return sums

    def add_unfinished(self, sums: Any, weights: Any, x: Any) -> Any:
        return _add_bytes(self.tile_words, sums, weights, x)

    def finished(self, sums: Any) -> Any:
        return sums


@dataclass(frozen=True, slots=True)
class Avx512Vnni(AvxVnni):
    """See `Instructions`."""

    level: Level = AVX512_VNNI
    tile_rows: int = 8
    """Eight vectors of sums and as many of results leave half of the 32 registers for operands; 64 rows fill eight tiles."""
    tile_words: int = 2 * LANES


def _add_bytes(words: int, sums: Any, weights: Any, x: Any) -> Any:
    return T.call_llvm_pure_intrin(
        f"int32x{words}",
        f"llvm.x86.avx512.vpdpbusd.{32 * words}",
        sums,
        T.reinterpret(f"uint8x{4 * words}", weights),
        T.reinterpret(f"int8x{4 * words}", x),
    )
