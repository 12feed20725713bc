"""The folder that a package task writes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from llmbuild.canonical import Json
from llmbuild.engine.kind import PassOn
from llmbuild.errors import InputError
from llmbuild.packages.kind import InputFile


class Folder:
    """Implements `llmbuild.packages.kind.Out` in the output directory of a task."""

    def __init__(self, root: Path, pass_on: PassOn, count: Callable[[], None] = lambda: None) -> None:
        """`count` is called after each file."""
        self._root = root
        self._pass_on = pass_on
        self._count = count

    def pass_on(self, file: InputFile, name: str) -> None:
        self._pass_on(file.source, file.name, name)
        self._count()

    def write(self, name: str, text: str) -> None:
        from llmbuild.engine.names import astray

        if (why := astray(name)) is not None:
            raise InputError("no package can have a file of this name", where=name, why=why)
        path = self._root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        # An existing file is a mistake of the kind, and is not replaced.
        with path.open("x", encoding="utf-8", newline="\n") as file:
            file.write(text)
        self._count()

    def write_json(self, name: str, value: Json) -> None:
        self.write(name, json.dumps(value, indent=2, ensure_ascii=False) + "\n")
