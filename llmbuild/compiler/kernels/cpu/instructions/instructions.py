"""What products of small whole numbers need of an instruction set.

A word has four bytes or two halves of 16 bits.  Numbers of weights are 0 to 15, those of x are as `rounding` leaves them.  In a
row's product four words are of one group, whose scale they share, so that only the sum of its lanes counts: an instruction set
may add up what it likes in each of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from llmbuild.compiler.levels.level import Level

Parts = Sequence[tuple[Any, Any]]
"""Vectors of weights, each with the vector of x by which it is multiplied."""


class Instructions(Protocol):
    """Implementations are frozen dataclasses, since what a kernel is made of is part of its name (`compiler.reuse`)."""

    @property
    def level(self) -> Level | None:
        """The level of a CPU that it belongs to, for libraries whose target lacks it; None where it is for targets only."""
        ...

    @property
    def features(self) -> tuple[str, ...]:
        """What a target must have, as LLVM names it."""
        ...

    @property
    def words(self) -> int:
        """Words of a vector of a row's product of bytes: 8 or a multiple."""
        ...

    @property
    def lanes(self) -> int:
        """Lanes of its sums: 1, 2 or 4 for each group."""
        ...

    @property
    def outputs(self) -> int:
        """Outputs of a row's product of bytes that are computed together, for each of which x is loaded once."""
        ...

    def unpacked(self, words: Any, count: int) -> tuple[Any, Any]:
        """The even and the odd numbers of 4 bits of a vector of `count` words, as words of bytes."""
        ...

    def add_bytes(self, start: Any | None, parts: Parts) -> Any:
        """int32 x `lanes`: `start`, if any, and the products of all bytes of at most two parts of `words` words."""
        ...

    def add_halves(self, start: Any | None, parts: Parts) -> Any:
        """int32x8: the same of any number of parts of eight words of signed halves, with four lanes for a group."""
        ...

    @property
    def side(self) -> int:
        """How many rows of x an instruction multiplies in a tile, and how many words of each row and each output: 1, or 2 where
        instructions multiply matrices."""
        ...

    @property
    def tile_rows(self) -> int:
        """Rows of x in a register tile of 16 outputs."""
        ...

    @property
    def tile_words(self) -> int:
        """Outputs of a vector of a tile: 8 or 16."""
        ...

    @property
    def passes(self) -> int:
        """Into how many passes the outputs of a tile are divided, 1 or 2, so that its unfinished sums are in registers."""
        ...

    @property
    def unfinished(self) -> tuple[str, int]:
        """The type and the lanes of sums of products of bytes within a group, in tiles: those of `side` rows with `tile_words`
        outputs.  With sums of words, many rows are rounded to two planes too."""
        ...

    def add_unfinished(self, sums: Any, weights: Any, x: Any) -> Any:
        """Unfinished sums and the products of bytes: from zero on, at most eight times where sums are no words.  `weights` has
        `side` words of each of `tile_words` outputs, and `x` as many of each of `side` rows: a single one for each output."""
        ...

    def finished(self, sums: Any) -> Any:
        """int32 x (`side` * `tile_words`): the sums of the products of each row with each output, row after row."""
        ...
