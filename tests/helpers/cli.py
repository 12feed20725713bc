"""Run llmbuild as its users do: as a process, in a project directory, with a store of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TINY_MANIFEST = """\
[project]
name = "tiny"

[models.tiny]
source = "checkpoint"
conv-template = "chatml"

[metadata]
context-window-size = 64
prefill-chunk-size = 32

[[build]]
models = ["tiny"]
quantizations = ["q4f32_1"]
platforms = ["x86_64-linux-cpu"]
"""

LONGER_MANIFEST = (
    TINY_MANIFEST.replace("context-window-size = 64", "context-window-size = 400")
    .replace("prefill-chunk-size = 32", "prefill-chunk-size = 64")
    .replace("q4f32_1", "q0f32")
)
"""A context that has room for a conversation, and weights as they are."""


@dataclass(frozen=True)
class Result:
    """A finished process."""

    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        return self.out + self.err


@dataclass(frozen=True)
class ProjectDir:
    """A project directory with a manifest, and the store that its commands use."""

    root: Path
    store: Path

    def write(self, manifest: str) -> None:
        (self.root / "buildfile.toml").write_text(manifest)

    def run(self, *arguments: str, env: Mapping[str, str] | None = None, timeout: float = 300) -> Result:
        """`python -m llmbuild ARGUMENTS` in the project directory."""
        environment = {
            **os.environ,
            "LLMBUILD_CACHE": str(self.store),
            "NO_COLOR": "1",
            "TVM_BIND_THREADS": "0",
            "PYTHONPATH": str(Path(__file__).parent.parent.parent),
            **(env or {}),
        }
        process = subprocess.run(
            [sys.executable, "-m", "llmbuild", *arguments],
            cwd=self.root,
            env=environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        return Result(process.returncode, process.stdout, process.stderr)

    def build(self, *arguments: str, env: Mapping[str, str] | None = None, timeout: float = 300) -> Counter[str]:
        """A build that must succeed; returns how many tasks of each kind ran."""
        events = self.root / ".llmbuild-events.ndjson"
        events.unlink(missing_ok=True)
        result = self.run("build", "--events", str(events), *arguments, env=env, timeout=timeout)
        assert result.code == 0, result.text
        return tasks_run(events)

    def snapshot(self, directory: str = "dist") -> dict[str, bytes]:
        """Every file below a directory of the project with its content."""
        base = self.root / directory
        return {
            str(path.relative_to(base)): path.read_bytes()
            for path in sorted(base.rglob("*"))
            if path.is_file() and not path.is_symlink()
        }


def read_events(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def tasks_run(path: Path) -> Counter[str]:
    """How many tasks of each kind were started, from an events file."""
    return Counter(event["label"].split("[")[0] for event in read_events(path) if event["type"] == "started")


def make_project(directory: Path, manifest: str = TINY_MANIFEST, checkpoint: Path | None = None) -> ProjectDir:
    """A project directory with a copy of a checkpoint in `checkpoint/`, and a store that knows the tools and has nothing else."""
    from tests.helpers.memos import know_the_tools

    root = directory / "project"
    root.mkdir(parents=True)
    if checkpoint is not None:
        shutil.copytree(checkpoint, root / "checkpoint")
    project = ProjectDir(root, directory / "store")
    project.write(manifest)
    know_the_tools(project.store)
    return project
