"""The files of a project's own architectures, which are read and never run here."""

from __future__ import annotations

import os
from pathlib import Path

from llmbuild.errors import InputError
from llmbuild.models.own import DIRECTORY, file_of, module_of

_MOST = 1 << 20
"""The most bytes of a file."""


def own_files(root: Path) -> list[str]:
    """The names of a project's own architectures.  A link that leads out of the project is none."""
    names = [file.stem for file in sorted((root / DIRECTORY).glob("*.py"))]
    return [name for name in names if module_of(name) == name and is_own_file(root, name)]


def is_own_file(root: Path, name: str) -> bool:
    """Whether the file is a plain one within the project, also behind links."""
    file = root / file_of(name)
    return file.is_file() and Path(os.path.realpath(file)).is_relative_to(os.path.realpath(root))


def read_architecture(root: Path, name: str) -> bytes:
    """The bytes of a project's own architecture.  Raises InputError."""
    try:
        with (root / file_of(name)).open("rb") as file:
            data = file.read(_MOST + 1)
    except OSError as error:
        raise InputError("cannot be read", where=file_of(name), why=error.strerror) from error
    if len(data) > _MOST:
        raise InputError("is too large for an architecture", where=file_of(name), why="it has more than a mebibyte")
    return data


def text_of(name: str, data: bytes) -> str:
    """The text of a file.  Raises InputError where it is none."""
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise InputError("is not UTF-8", where=file_of(name), why=str(error)) from error
