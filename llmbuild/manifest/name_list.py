"""A list of names in a manifest: it has some, and each once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmbuild.manifest.problems import Problems
    from llmbuild.tomlfile import KeyPath


def listed_names(
    path: KeyPath, names: Sequence[str], done: str, check: Callable[[KeyPath, str], bool], problems: Problems
) -> list[str] | None:
    """The names of the list at a path, each once; None where it is empty, or a name is wrong.

    `check` says whether the name at a path is right, and adds the error to `problems` where it is not; `done` is what is done
    with what the list names, for the error of an empty one.
    """
    if not names:
        key = path[-1]
        problems.add(path, f"the list of {key} is empty, so nothing is {done}", fix=f"name some, or remove {key}")
        return None
    found: list[str] = []
    valid = True
    for number, name in enumerate(names):
        if name in found:
            problems.add((*path, number), f"'{name}' is listed twice", fix="remove one")
        elif check((*path, number), name):
            found.append(name)
        else:
            valid = False
    return found if valid else None
