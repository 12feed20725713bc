"""The options of a workspace: the cells of the build matrix, and how the world may be used."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

OnNote: TypeAlias = Callable[[str], None]
"""Receives what is worth reporting and stops nothing, a sentence at a time."""


@dataclass(frozen=True, slots=True)
class Selection:
    """The cells of the build matrix by the names of the manifest; an empty tuple stands for all of them."""

    models: tuple[str, ...] = ()
    quantizations: tuple[str, ...] = ()
    platforms: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Options:
    """`cache` is the directory of the store, None for the user's own.  `offline` forbids the network; `locked` requires an
    up-to-date lock file, and never writes it; with `trust` whatever the project's targets name may run."""

    cache: Path | None = None
    offline: bool = False
    locked: bool = False
    trust: bool = False


ALL = Selection()
USUAL = Options()
