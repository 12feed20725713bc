"""The kinds of sources, found by the names of their files: kind `x` is `KIND` in the module `x` of this package.

A file that is added here is a kind that is known everywhere.  A kind is imported when it is looked up.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib import import_module

from llmbuild.sources.kind import SourceKind


def known_kind(name: object) -> SourceKind | None:
    """The kind with a name that may come from outside, None where there is no such kind."""
    return _load(name) if isinstance(name, str) and name.isidentifier() and not name.startswith("_") else None


def source_kind(name: str) -> SourceKind:
    """The kind with this name.  Raises KeyError when there is none."""
    kind = known_kind(name)
    if kind is None:
        raise KeyError(name)
    return kind


def source_kinds() -> Sequence[SourceKind]:
    """Every kind in the order of messages: those of this machine's files first, and of these the one that texts name."""
    import pkgutil

    kinds = [source_kind(module.name) for module in pkgutil.iter_modules(__path__)]
    return sorted(kinds, key=lambda kind: (kind.remote, not kind.schemes, kind.name))


@cache
def _load(name: str) -> SourceKind | None:
    module_name = f"llmbuild.sources.kinds.{name}"
    try:
        module = import_module(f"llmbuild.sources.kinds.{name}")
    except ModuleNotFoundError as error:
        if error.name == module_name:
            return None
        raise
    kind = module.KIND
    if not isinstance(kind, SourceKind) or kind.name != name:
        raise TypeError(f"{module_name}.KIND is not the source kind '{name}'")
    return kind
