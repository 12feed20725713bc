"""A tiny model with random weights, built once for the tests that load it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import llmbuild
from llmbuild.runtime.model import Model
from tests.helpers.checkpoints import cached_checkpoint
from tests.helpers.cli import TINY_MANIFEST, ProjectDir, make_project

MANIFEST = (
    TINY_MANIFEST.replace("context-window-size = 64", "context-window-size = 400")
    .replace("prefill-chunk-size = 32", "prefill-chunk-size = 64")
    .replace("q4f32_1", "q0f32")
)


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
