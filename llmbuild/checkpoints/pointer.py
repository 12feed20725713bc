"""Pointers of git-lfs, which a clone without git-lfs has in place of the files."""

from __future__ import annotations

import re

from llmbuild.errors import InputError

_POINTER = b"version https://git-lfs.github.com/spec/"
POINTER_BYTES = 1024
"""The specification of git-lfs allows fewer."""


def refuse_pointer(data: bytes, where: str) -> None:
    """Raise InputError when a file's content is that of a pointer."""
    if len(data) < POINTER_BYTES and data.startswith(_POINTER):
        size = re.search(rb"^size (\d{1,20})$", data, re.MULTILINE)
        raise InputError(
            "is a git-lfs pointer",
            where=where,
            why=f"the file itself, of {int(size[1])} bytes, is not there" if size else "the file itself is not there",
            fix="run `git lfs pull` in the repository that it is from",
        )
