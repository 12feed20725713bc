"""A part of the cache goes to another machine: `cache export` with a selection, `cache import`, and a build that runs nothing."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest

from tests.helpers.checkpoints import cached_checkpoint, make_checkpoint
from tests.helpers.cli import ProjectDir, make_project

MANIFEST = """\
[project]
name = "tiny"

[models.tiny]
source = "checkpoint"
conv-template = "chatml"

[models.other]
source = "other"
conv-template = "LM"

[metadata]
context-window-size = 64
prefill-chunk-size = 32

[platforms.generic]
target = "x86_64-linux-cpu"

[platforms.archive]
target = "x86_64-linux-cpu"
artifact = "tar"
system-lib-prefix = "{model}_{quantization}_"

[[build]]
models = ["tiny", "other"]
quantizations = ["q4f32_1", "q0f32"]
platforms = ["generic", "archive"]
"""
CELL = ("-m", "tiny", "-q", "q4f32_1", "-p", "generic")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> ProjectDir:
    """Two models in two quantizations; of their eight libraries one is built."""
    project = make_project(tmp_path_factory.mktemp("here"), MANIFEST, cached_checkpoint("llama-gqa"))
    make_checkpoint(project.root / "other", "llama-gqa", seed=3)
    assert project.build("quantize", "config") == {"fetch": 2, "inspect": 2, "quantize": 4, "config": 4}
    assert project.build(*CELL) == {"lower": 1, "link": 1}
    return project


def elsewhere(project: ProjectDir, directory: Path) -> ProjectDir:
    """The project's sources in another place, with an empty store."""
    root = directory / "project"
    shutil.copytree(project.root, root, ignore=shutil.ignore_patterns("dist", ".llmbuild*", "*.tar"))
    return ProjectDir(root, directory / "store")


def exported(project: ProjectDir, there: ProjectDir, *selection: str) -> int:
    """Export a selection, import it there, and return how many results came along."""
    archive = project.root / "part.tar"
    packed = project.run("cache", "export", str(archive), *selection, "--json")
    assert packed.code == 0, packed.text
    assert json.loads(packed.out)["left-out"] == []
    taken = there.run("cache", "import", str(archive), "--json")
    assert taken.code == 0, taken.text
    counts = [json.loads(text)["traces"] for text in (packed.out, taken.out)]
    assert counts[0] == counts[1]
    return int(counts[0])


def states(project: ProjectDir, *selection: str) -> Counter[str]:
    """How many tasks of the plan are in each state."""
    plan = json.loads(project.run("plan", "--json", *selection).out)
    return Counter(task["state"] for task in plan["tasks"])


def test_one_cell_of_the_matrix_goes_along_and_no_more(built: ProjectDir, tmp_path: Path) -> None:
    there = elsewhere(built, tmp_path / "there")
    assert exported(built, there, *CELL) == 6
    # Its files have to be put into the project, and nothing has to run.
    assert set(states(there, *CELL)) <= {"cached", "restore"}
    assert there.build(*CELL, "--offline") == {}
    library = "libs/tiny-q4f32_1-generic.so"
    assert there.snapshot()[library] == built.snapshot()[library]
    files = {name: data for name, data in built.snapshot().items() if name.startswith(("tiny-q4f32_1-MLC/", library))}
    assert there.snapshot() == files
    # The rest of the matrix is not there.
    assert states(there)["run"] + states(there)["maybe"] == states(there).total() - 6


@pytest.mark.parametrize(
    ("selection", "tasks"),
    [
        (("-m", "other"), {"fetch": 1, "inspect": 1, "quantize": 2, "config": 2}),
        (("-q", "q0f32"), {"fetch": 2, "inspect": 2, "quantize": 2, "config": 2}),
        (("-m", "tiny", "-m", "other", "-q", "q0f32"), {"fetch": 2, "inspect": 2, "quantize": 2, "config": 2}),
    ],
)
def test_models_and_quantizations_are_selected(
    built: ProjectDir, tmp_path: Path, selection: tuple[str, ...], tasks: dict[str, int]
) -> None:
    there = elsewhere(built, tmp_path / "there")
    assert exported(built, there, "quantize", "config", *selection) == sum(tasks.values())
    assert there.build("quantize", "config", *selection) == {}
    assert states(there, "quantize", "config")["run"] > 0


def test_what_is_selected_and_not_built_is_said(built: ProjectDir) -> None:
    archive = built.root / "part.tar"
    packed = built.run("cache", "export", str(archive), "--json", "-m", "tiny", "-q", "q4f32_1")
    assert packed.code == 0
    assert json.loads(packed.out)["left-out"] == [
        "lower[tiny, q4f32_1, archive]",
        "link[tiny, q4f32_1, archive]",
    ]
    assert built.run("cache", "export", str(archive), "-m", "tinny").code == 2
