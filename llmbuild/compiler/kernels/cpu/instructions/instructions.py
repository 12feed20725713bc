"""What products of small whole numbers need of an instruction set.

A vector is of eight words, which have four bytes or two halves of 16 bits each.  Those of weights are 0 to 15, those of x as
`rounding` leaves them.  Four words are of one group, so that only the sum of their four lanes counts: an instruction set may
add up what it likes in each of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

Parts = Sequence[tuple[Any, Any]]
"""Vectors of weights, each with the vector of x by which it is multiplied."""


class Instructions(Protocol):
    """Implementations are frozen dataclasses, since what a kernel is made of is part of its name (`compiler.reuse`)."""

    @property
    def feature(self) -> str:
        """What a target must have, as LLVM names it."""
        ...

    def add_bytes(self, start: Any | None, parts: Parts) -> Any:
        """int32x8: `start`, if any, and the products of all bytes of at most two parts; only a group's four lanes together are
        its sum."""
        ...

    def add_halves(self, start: Any | None, parts: Parts) -> Any:
        """The same of signed halves, for any number of parts."""
        ...

    @property
    def unfinished(self) -> tuple[str, int]:
        """The type and the lanes of sums of products of bytes within a group, in tiles, where each word is of an output."""
        ...

    def add_unfinished(self, sums: Any, weights: Any, x: Any) -> Any:
        """Unfinished sums and the products of bytes: from zero on, at most eight times."""
        ...

    def finished(self, sums: Any) -> Any:
        """int32x8: the sum of the products of each word."""
        ...
