"""The options of a workspace: the cells of the build matrix, and how the world may be used."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from llmbuild.variables import flag

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
    up-to-date lock file, and never writes it; None leaves both to LLMBUILD_OFFLINE and LLMBUILD_LOCKED.  With `trust` whatever
    the project's targets name may run.  Of the `unlisted` platforms, which the manifest's file does not name, the lock takes
    nothing."""

    cache: Path | None = None
    offline: bool | None = None
    locked: bool | None = None
    trust: bool = False
    unlisted: frozenset[str] = frozenset()

    def decided(self) -> Options:
        """The options with the environment's values for those that were left to it.  Raises UsageError for a wrong variable."""
        offline = flag("LLMBUILD_OFFLINE") if self.offline is None else self.offline
        locked = flag("LLMBUILD_LOCKED") if self.locked is None else self.locked
        return replace(self, offline=offline, locked=locked)


ALL = Selection()
USUAL = Options()
