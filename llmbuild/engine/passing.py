"""Files of a task's inputs that are part of its output as they are: the output names the same blobs, and no byte is copied."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from llmbuild.engine import records
from llmbuild.engine.tree import FileEntry, Tree
from llmbuild.errors import InputError


class Passed(NamedTuple):
    """A file of an input: where it was laid out, and its entry in the input's tree."""

    path: Path
    entry: FileEntry


class Passer:
    """Takes files of inputs into the output of a task.

    What a file is comes from the input's tree, whose digest is in the key, and never from what the task has done to the
    laid out file; the store verifies the blob when it takes the output in.
    """

    def __init__(self, out: Path, inputs: Mapping[str, Path], trees: Mapping[str, Tree]) -> None:
        self._out = out
        self._inputs = inputs
        self._entries = {name: {entry.path: entry for entry in tree.files} for name, tree in trees.items()}
        self.passed: dict[str, Passed] = {}
        """What the output has of the inputs, by path in the output."""

    def __call__(self, source: str, path: str, name: str) -> None:
        """As `kind.PassOn` has it."""
        try:
            records.file_path(name)
        except ValueError as error:
            raise InputError("no result can have a file of this name", where=name, why=str(error)) from error
        if name in self.passed or (self._out / name).exists():
            raise InputError("two files of a result have the same name", where=name)
        self.passed[name] = Passed(self._inputs[source] / path, self._entries[source][path])
