"""ARM's products of matrices of bytes (FEAT_I8MM, in most cores since ARMv8.6): one instruction adds those of two rows with two
outputs, of eight bytes each, to four words.  A row alone is multiplied by dot products, which such CPUs have too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tvm import tirx
from tvm.script import tirx as T

from llmbuild.compiler.kernels.cpu.instructions.dotprod import DotProduct
from llmbuild.compiler.kernels.cpu.instructions.neon import joined, piece
from llmbuild.compiler.kernels.cpu.tile import LANES
from llmbuild.compiler.levels.aarch64 import I8MM
from llmbuild.compiler.levels.level import Level

QUARTER = 4
"""Words of a register: the sums of two rows with two outputs."""


@dataclass(frozen=True, slots=True)
class MatrixProduct(DotProduct):
    """See `Instructions`."""

    level: Level = I8MM
    side: int = 2
    tile_rows: int = 8
    """4 pairs of rows x 4 pairs of outputs are 16 vectors of sums, which leave 16 of 32 registers for operands."""
    passes: int = 2
    unfinished: tuple[str, int] = ("int32", 2 * LANES)

    def add_unfinished(self, sums: Any, weights: Any, x: Any) -> Any:
        numbers = T.reinterpret(f"int8x{8 * self.tile_words}", weights)
        rows = T.reinterpret(f"int8x{4 * QUARTER}", x)
        pairs = [
            T.call_llvm_pure_intrin(
                "int32x4",
                "llvm.aarch64.neon.smmla.v4i32.v16i8",
                piece(sums, QUARTER, pair),
                rows,
                piece(numbers, 4 * QUARTER, pair),
            )
            for pair in range(self.tile_words // 2)
        ]
        return joined(pairs, QUARTER)

    def finished(self, sums: Any) -> Any:
        """Of each pair of outputs, those of the one row, then those of the other."""
        places = [
            QUARTER * pair + 2 * row + output
            for row in range(2)
            for pair in range(self.tile_words // 2)
            for output in range(2)
        ]
        return tirx.Shuffle([sums], [tirx.IntImm("int32", place) for place in places])
