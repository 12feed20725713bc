"""What a name calls among platforms: the platform itself, every one that a pattern fits, or those of an alias' target."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmbuild.targets.names import TargetNames

_WILDCARDS = "*?["


def is_pattern(name: str) -> bool:
    """Whether a name has wildcards, as no platform's name can."""
    return any(sign in name for sign in _WILDCARDS)


def called(name: str, platforms: Mapping[str, str], names: TargetNames) -> tuple[str, ...]:
    """The platforms that a name calls, of those that are there with their targets; none where it calls nothing.

    A platform's own name goes first.  Raises UsageError where the names of targets cannot be read.
    """
    if name in platforms:
        return (name,)
    if is_pattern(name):
        return tuple(platform for platform in platforms if fnmatchcase(platform, name))
    if name in names.own:
        return ()
    target = names.target_of(name)
    return tuple(platform for platform, of in platforms.items() if target is not None and of == target)


def matched(pattern: str, tables: Mapping[str, str], names: TargetNames) -> tuple[str, ...]:
    """The platforms that a pattern in a list of platforms stands for: the tables that it fits, and each target that it fits and
    that no table is for.

    `tables` has the target of each table.  A target that is native is left out: each machine would make another library of
    one name.  Raises UsageError where a target file is wrong.
    """
    from llmbuild.targets.files import load_target
    from llmbuild.targets.target import NATIVE

    own = [name for name in tables if fnmatchcase(name, pattern)]
    free = [name for name in names.own if name not in (*tables, *tables.values()) and fnmatchcase(name, pattern)]
    return (*own, *(name for name in free if load_target(name, names.user).cpu != NATIVE))
