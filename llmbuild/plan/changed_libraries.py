"""What changed in the libraries of a package, whose tasks have them as tables in their parameters (llmbuild.plan.packages)."""

from __future__ import annotations

from typing import Any

from llmbuild.canonical import Json
from llmbuild.plan.frozen import same
from llmbuild.printable import several

_MEMBERS = "members"
_JOINED = "libraries/"


def libraries_changed(path: str, old: Json, new: Json) -> str | None:
    """The sentence for a leaf of a package's or a join's parameters; None for a leaf that is no list of libraries.

    `old` or `new` is None where the leaf is not there.
    """
    if path.startswith(_JOINED):
        before, after = _joined(old), _joined(new)
    elif path == _MEMBERS:
        try:
            before, after = _members(old), _members(new)
        except (KeyError, TypeError):
            # The earlier key is of another llmbuild.
            return None
    else:
        return None
    found = {
        "removed": [name for name in before if name not in after],
        "added": [name for name in after if name not in before],
        "changed": [name for name in after if name in before and not same(before[name], after[name])],
    }
    said = [
        f"{'library' if len(names) == 1 else 'libraries'} {several(names, 3)} {verb}"
        for verb, names in found.items()
        if names
    ]
    return "; ".join(said) or "the libraries are in another order"


def _members(value: Any) -> dict[str, Json]:
    """The libraries of a package's members with what the package knows of each, by their names, in their order."""
    return {
        f"{member['model']}-{member['scheme']}-{library['platform']['name']}": [member["files"], library]
        for member in value
        for library in member["libraries"]
    }


def _joined(name: Json) -> dict[str, Json]:
    return {} if name is None else {str(name): None}
