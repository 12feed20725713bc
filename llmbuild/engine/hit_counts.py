"""How often builds found what they needed in the store, by kind of task.

A build adds one line of JSON to one file when it ends, whatever it did: nothing is written for a hit.  Lines are summed
up when there are many.  Numbers for people only: what is lost or torn changes no build.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from llmbuild.canonical import canonical_json
from llmbuild.engine import files, fs, records
from llmbuild.errors import StoreError

_SUM_ABOVE = 256 << 10
"""The size in bytes from which on the lines are summed up."""


@dataclass(frozen=True, slots=True)
class Use:
    """`hits` results were found, `misses` had to be made."""

    hits: int = 0
    misses: int = 0

    def __add__(self, other: Use) -> Use:
        return Use(self.hits + other.hits, self.misses + other.misses)


class Uses:
    """The uses of one store."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self, uses: Mapping[str, Use]) -> None:
        """Add what one build used, by kind.  A store that cannot be written keeps no count."""
        if not uses:
            return
        # Lines that another build adds while they are summed up are lost, which is an error of one build in thousands.
        with contextlib.suppress(OSError, StoreError):
            fs.current.append(self._path, _line(uses))
            if self._path.stat().st_size > _SUM_ABOVE:
                files.write_atomic(self._path, _line(self.total()))

    def total(self) -> dict[str, Use]:
        """What all builds used so far, by kind, sorted."""
        total: dict[str, Use] = {}
        try:
            lines = self._path.read_bytes().splitlines()
        except OSError:
            return {}
        for line in lines:
            # A line that was cut off by a power loss is not counted.
            with contextlib.suppress(ValueError):
                for kind, use in _parsed(line).items():
                    total[kind] = total.get(kind, Use()) + use
        return dict(sorted(total.items()))


def _parsed(line: bytes) -> dict[str, Use]:
    found: dict[str, Use] = {}
    for kind, numbers in records.json_object(line).items():
        if not isinstance(numbers, list) or len(numbers) != 2:
            raise ValueError("a use has hits and misses")
        hits, misses = (records.count(number, "a use") for number in numbers)
        found[records.text(kind, "a kind")] = Use(hits, misses)
    return found


def _line(uses: Mapping[str, Use]) -> bytes:
    return canonical_json({kind: [use.hits, use.misses] for kind, use in uses.items()}) + b"\n"
