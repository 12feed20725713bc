"""What a CI job says of itself is no part of a test: under GitHub Actions llmbuild prints workflow commands too.  Nor is what
containers tell Python, not to keep compiled modules: the tests start thousands of processes, which would all compile them.

A tiny model with random weights is built once in a worker for the tests that load it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.helpers.cli import ProjectDir

pytest_plugins = ["tests.helpers.provoked"]

for name in ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY", "PYTHONDONTWRITEBYTECODE"):
    os.environ.pop(name, None)


@pytest.fixture(scope="session", autouse=True)
def stacks_are_quick() -> Iterator[None]:
    """TVM asks for the stack at each function that it parses, which searches all modules: a process of tests has thousands of
    them.  `lower` does the same for itself."""
    from llmbuild.compiler.frames import quick_stacks

    with quick_stacks():
        yield


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> ProjectDir:
    """The tiny model's project after its build: read only."""
    from tests.helpers.checkpoints import cached_checkpoint
    from tests.helpers.cli import LONGER_MANIFEST, make_project

    project = make_project(tmp_path_factory.mktemp("tiny"), LONGER_MANIFEST, cached_checkpoint("llama"))
    project.build()
    return project


@pytest.fixture(scope="session")
def model_dir(built: ProjectDir) -> Path:
    return built.root / "dist/tiny-q0f32-MLC"


@pytest.fixture(scope="session")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The sdist of this tree and the wheel that is built from it, made once in a worker."""
    from tests.helpers.wheel import build_distributions

    return build_distributions(tmp_path_factory.mktemp("distributions"))
