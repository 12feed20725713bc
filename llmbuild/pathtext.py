"""Paths as a manifest writes them: `~`, and `${NAME}` for a variable of the environment.

A path is expanded where it is used.  Messages, the lock file and records keep the text as it is written.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

_PART = re.compile(r"\$\$|\$\{([^}]*)\}|\$\{")
_LIKE_VARIABLE = re.compile(r"(?<!\$)\$([A-Za-z_][A-Za-z0-9_]*)", re.ASCII)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)


class PathTextError(ValueError):
    """A path that cannot be expanded; `fix` says what to do."""

    def __init__(self, what: str, fix: str) -> None:
        super().__init__(what)
        self.fix = fix


def has_variable(text: str) -> bool:
    """Whether a text has the beginning of a variable."""
    return any(found[0] != "$$" for found in _PART.finditer(text))


def variables_of(text: str) -> tuple[str, ...]:
    """The variables that a path depends on, HOME for `~` among them."""
    names = [found[1] for found in _PART.finditer(text) if found[1] is not None]
    return tuple(dict.fromkeys([*names, *(["HOME"] if _at_home(text) else [])]))


def advice(text: str) -> str | None:
    """What to write where a part of a path looks like a variable or a home directory and is none of these; None else."""
    first = text.partition("/")[0]
    if first.startswith("~") and first != "~":
        return f"write the path of {first}: only '~/', your own home directory, is replaced"
    found = _LIKE_VARIABLE.search(text)
    return f"write ${{{found[1]}}} for the variable" if found is not None else None


def expand(text: str, environ: Mapping[str, str] | None = None) -> str:
    """The path with `~` (first, alone or before a slash) and variables replaced; `$$` is a dollar sign, any other `$` is itself.

    What a variable holds is not expanded again.  Raises PathTextError for a variable that is unset, empty or misspelt.
    """
    environ = os.environ if environ is None else environ

    def value(found: re.Match[str]) -> str:
        if found[0] == "$$":
            return "$"
        name = found[1]
        if name is None or not _NAME.fullmatch(name):
            raise PathTextError(
                f"'{found[0][:40]}' is not a variable", "write ${NAME}, or $${ for a dollar sign before a brace"
            )
        # An empty one would make another path of it, such as the root of the file system.
        if not environ.get(name):
            state = "empty" if name in environ else "not set"
            raise PathTextError(f"the variable {name} is {state}", f"set {name}, or write the path")
        return environ[name]

    home = ""
    if _at_home(text):
        home, text = environ.get("HOME") or _home_of_user(), text[1:]
    return home + _PART.sub(value, text)


def _at_home(text: str) -> bool:
    return text == "~" or text.startswith("~/")


def _home_of_user() -> str:
    try:
        return str(Path("~").expanduser())
    except RuntimeError:
        raise PathTextError("there is no home directory for '~'", "set HOME, or write the path") from None
