"""A task: a node of the plan, with a label that a person can type."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from llmbuild.canonical import Json


@dataclass(frozen=True, slots=True)
class AllFiles:
    """The whole output tree of a task."""


@dataclass(frozen=True, slots=True)
class Files:
    """The files of an output tree that match shell patterns."""

    patterns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class JsonFields:
    """The named fields (dots descend) of one JSON file in an output tree; absent fields are left out."""

    file: str
    fields: tuple[str, ...]


Selection: TypeAlias = AllFiles | Files | JsonFields


@dataclass(frozen=True, slots=True)
class InputRef:
    """A named input: which part of which task's output."""

    task: str
    select: Selection = AllFiles()


@dataclass(frozen=True, slots=True)
class Install:
    """Where a part of a task's output goes: `source` inside the output tree ("" for all of it), `dest` in the project."""

    source: str
    dest: str


@dataclass(frozen=True, slots=True)
class Task:
    """A node of the plan before its inputs are bound.  `params` and `tools` are part of the key, `hints` are not."""

    kind: str
    label: str
    version: int
    params: Mapping[str, Json]
    inputs: Mapping[str, InputRef]
    tools: Mapping[str, str]
    hints: Mapping[str, Json] = field(default_factory=dict)
    installs: tuple[Install, ...] = ()
    model: str = ""
    scheme: str = ""
    platform: str = ""
