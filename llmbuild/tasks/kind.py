"""What a task kind is: its declared dependencies, and the function that does the work.

Importing a kind is cheap; heavy modules are imported inside `run`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from llmbuild.canonical import Json


class Progress(Protocol):
    """Called by a running task: units done, units in all (0 when unknown), and what the units are ("bytes", "files", …)."""

    def __call__(self, done: int, total: int, unit: str = "") -> None: ...


@dataclass(frozen=True, slots=True)
class Job:
    """What a task may see while it runs, and nothing else.

    `inputs` maps each input's name to a directory with the selected files (read-only), or, for a JSON projection, to a
    file that holds just the projected value.  `out` is an empty directory: what is in it afterwards is the output.
    What the task prints goes to its log.  `hints` tell where to find bytes; they never change the result.
    """

    params: Mapping[str, Json]
    inputs: Mapping[str, Path]
    hints: Mapping[str, Json]
    out: Path
    scratch: Path
    progress: Progress


@dataclass(frozen=True, slots=True)
class TaskKind:
    """A declared kind.

    `params` are the names of its parameters (the projection that enters the key).  `sources` are the llmbuild modules and
    packages whose bytes are part of the key, as dotted names ("llmbuild.linkers"); a test holds them against the real
    import graph.  `tools` are the names of other tools in the key ("apache-tvm", "linker", "numpy").  `version` changes
    when the meaning of the parameters does.
    """

    name: str
    version: int
    params: tuple[str, ...]
    sources: tuple[str, ...]
    tools: tuple[str, ...]
    run: Callable[[Job], None]
