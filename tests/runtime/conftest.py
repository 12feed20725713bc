"""A tiny model with random weights, built once for the tests that load it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import llmbuild
from llmbuild.runtime.model import Model
from tests.helpers.checkpoints import cached_checkpoint
from tests.helpers.cli import ProjectDir, make_project

MANIFEST = """\
[project]
name = "tiny"

[models.tiny]
source = "checkpoint"
conv-template = "chatml"

[metadata]
context-window-size = 400
prefill-chunk-size = 64

[[build]]
models = ["tiny"]
quantizations = ["q0f32"]
platforms = ["x86_64-linux-cpu"]
"""


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> ProjectDir:
    """The project after its build: read only."""
    project = make_project(tmp_path_factory.mktemp("tiny"), MANIFEST, cached_checkpoint("llama"))
    project.build()
    return project


@pytest.fixture(scope="session")
def model_dir(built: ProjectDir) -> Path:
    return built.root / "dist/tiny-q0f32-MLC"


@pytest.fixture
def model(model_dir: Path) -> Iterator[Model]:
    with llmbuild.load(model_dir, threads=1, seed=1) as loaded:
        yield loaded
