"""Task kinds for the model-based test: every combination of declared parameters and tools.

What a task writes is a pure function of what it declares (`produce`), coarse enough that a change often makes the same
bytes again.  The engine runs it through files; the oracle calls it on values in memory.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from llmbuild.engine.kind import Job, TaskKind
from llmbuild.errors import InputError

MODULE = "tests.helpers.proof_kinds"
PARAMS = ("p0", "p1", "p2")
TOOLS = ("t0", "t1")

Files: TypeAlias = "dict[str, bytes]"
"""Relative path -> content."""

Value: TypeAlias = "Files | dict[str, Any]"
"""An input as a task sees it: selected files, or a projected JSON object."""


@dataclass
class World:
    """What the tasks of this process meet: the tools that are installed, and the labels that fail now."""

    tools: dict[str, str] = field(default_factory=dict)
    failing: set[str] = field(default_factory=set)


WORLD = World()


def kind_name(params: tuple[str, ...], tools: tuple[str, ...]) -> str:
    return f"k-{'-'.join((*params, *tools))}"


def produce(params: Mapping[str, Any], tools: Mapping[str, str], inputs: Mapping[str, Value]) -> Files:
    """The output of a task: `a.json` with three fields of different grain, `b.txt`, and `sub/c.bin`."""
    seen = hashlib.sha256(repr((sorted(params.items()), _plain(inputs))).encode()).digest()
    # A tool's identity counts only by its first letter: "x1" -> "x2" is an upgrade that changes no byte.
    heads = "".join(tools[name][0] for name in sorted(tools))
    value = {"x": seen[0] % 3, "y": {"u": seen[1] % 2, "w": heads}, "z": seen[2] % 5}
    return {
        "a.json": json.dumps(value, indent=1).encode(),
        "b.txt": f"{params.get('p0')} {seen[3] % 4}\n".encode(),
        "sub/c.bin": seen[:4] if seen[4] % 2 else b"same",
    }


def _plain(inputs: Mapping[str, Value]) -> list[Any]:
    return [(name, sorted(value.items())) for name, value in sorted(inputs.items())]


def _read(path: Path) -> Value:
    if path.is_dir():
        return {f.relative_to(path).as_posix(): f.read_bytes() for f in sorted(path.rglob("*")) if f.is_file()}
    value: dict[str, Any] = json.loads(path.read_bytes())
    return value


def _run_with(tools: tuple[str, ...]) -> Any:
    def run(job: Job) -> None:
        if job.hints["label"] in WORLD.failing:
            (job.out / "half").write_text("half")
            raise InputError("told to fail")
        inputs = {name: _read(path) for name, path in job.inputs.items()}
        for name, data in produce(job.params, {name: WORLD.tools[name] for name in tools}, inputs).items():
            path = job.out / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(data)

    return run


def _subsets(names: tuple[str, ...]) -> list[tuple[str, ...]]:
    return [chosen for size in range(len(names) + 1) for chosen in itertools.combinations(names, size)]


KINDS = tuple(
    TaskKind(kind_name(params, tools), 1, params, (), tools, _run_with(tools))
    for params in _subsets(PARAMS)
    for tools in _subsets(TOOLS)
)
