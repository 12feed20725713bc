"""The kinds of destinations, found by the names of their files: kind `x` is `KIND` in the module `x` of this package."""

from __future__ import annotations

from functools import cache
from importlib import import_module

from llmbuild.errors import UsageError, did_you_mean
from llmbuild.printable import either
from llmbuild.publishing.kind import DestinationKind, Wishes


def kind_names() -> list[str]:
    """The name of every kind."""
    import pkgutil

    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def split(text: str) -> tuple[DestinationKind, str]:
    """The kind of a destination and the place that the rest of the text names.  Raises UsageError for a kind that is none."""
    name, colon, place = text.partition(":")
    if not colon or name not in kind_names():
        near = did_you_mean(name, kind_names()) if colon else None
        forms = either(_load(one).form for one in kind_names())
        raise UsageError(f"'{text}' is not a destination", why=near, fix=f"write {forms}")
    return _load(name), place


def check_wishes(kind: DestinationKind, wishes: Wishes) -> str | None:
    """The first wish that a kind cannot fulfil, None where it can all."""
    return next((name for name in wishes.given() if name not in kind.options), None)


@cache
def _load(name: str) -> DestinationKind:
    kind: DestinationKind = import_module(f"llmbuild.publishing.kinds.{name}").KIND
    return kind
