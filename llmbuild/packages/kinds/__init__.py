"""The kinds of packages, found by the names of their files: kind `x` is `KIND` in the module `x` of this package.

A file that is added here is a kind that is known everywhere.  A kind is imported when it is looked up.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pathlib import Path

from llmbuild.packages.kind import PackageKind


@cache
def kind_names() -> tuple[str, ...]:
    """The name of every kind, sorted."""
    return tuple(sorted(path.stem for path in Path(__path__[0]).glob("[!_]*.py")))


def package_kind(name: str) -> PackageKind:
    """The kind with this name.  Raises KeyError when there is none."""
    if name not in kind_names():
        raise KeyError(name)
    kind = import_module(f"llmbuild.packages.kinds.{name}").KIND
    if not isinstance(kind, PackageKind) or kind.name != name:
        raise TypeError(f"llmbuild.packages.kinds.{name}.KIND is not the package kind '{name}'")
    return kind
