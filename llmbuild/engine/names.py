"""Which names llmbuild writes to and removes: relative ones that lead nowhere else and, in a project, hide nothing."""

from __future__ import annotations

import unicodedata

from llmbuild.engine.files import TEMPORARY

LONGEST_NAME = 255
"""Bytes that file systems take for the name of one file."""

_LONGEST_PATH = 2048
_OTHERS = frozenset({".git", ".hg", ".svn", ".llmbuild"})
"""Directories that belong to somebody else, or contain llmbuild's own state."""

_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode categories of what a terminal obeys instead of showing it."""


def unfit(path: str) -> str | None:
    """Why a path, relative to the project, is none that llmbuild writes to or removes; None when it is one."""
    if len(path) > _LONGEST_PATH:
        return f"it is longer than {_LONGEST_PATH} characters"
    # Nearly every name is plain, and that is seen quickly.
    if not path.isprintable() and any(unicodedata.category(letter) in _UNSEEN for letter in path):
        return "it has control characters"
    for part in path.split("/"):
        if part.startswith(TEMPORARY) or part.lower() in _OTHERS:
            return f"{part} is not for results"
    return astray(path)


def astray(path: str) -> str | None:
    """Why a relative path does not name one place below the directory that it starts from; None when it does."""
    for part in path.split("/"):
        if part in ("", ".", ".."):
            return "it does not name one place below its directory"
        if len(part) > LONGEST_NAME or (not part.isascii() and len(part.encode()) > LONGEST_NAME):
            return f"a name in it is longer than {LONGEST_NAME} bytes"
    return None
