"""A task: a node of the plan, with a label that a person can type."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from llmbuild.canonical import Json

if TYPE_CHECKING:
    from llmbuild.engine.lack import Lack
    from llmbuild.errors import LlmbuildError


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
    """Where a part of a task's output goes: `source` inside the output tree ("" for all of it), `dest` in the project.

    `beside` is the `dest` of another task's result that this belongs to: the two are installed together or not at all.
    """

    source: str
    dest: str
    beside: str = ""

    @property
    def result(self) -> str:
        """The `dest` of the result that this is, or belongs to."""
        return self.beside or self.dest


@dataclass(frozen=True, slots=True)
class Choice:
    """A tool that a JSON input decides: its identity by the value of a field, `otherwise` for a value that is not among them."""

    tool: str
    input: str
    field: str
    identities: Mapping[str, str]
    otherwise: str


@dataclass(frozen=True, slots=True)
class Task:
    """A node of the plan before its inputs are bound.  `params` and `tools` are part of the key, and so is the tool of `choice`,
    once the input that decides it is known; `hints` are not.  A task with a `lack` can be had from the store, and cannot run.
    `package` names the package that is all that needs the task, where one does."""

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
    lack: Lack | None = None
    choice: Choice | None = None
    package: str = ""

    @property
    def missing(self) -> tuple[LlmbuildError, ...]:
        """What it needs and this machine does not have."""
        return () if self.lack is None else self.lack.errors
