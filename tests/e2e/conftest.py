"""What several tests of whole builds share."""

from __future__ import annotations

import pytest

from tests.helpers.checkpoints import cached_checkpoint
from tests.helpers.cli import ProjectDir, make_project
from tests.helpers.web_library import tiny_manifest
from tests.helpers.web_runtime import seed


@pytest.fixture(scope="session")
def tiny_web(tmp_path_factory: pytest.TempPathFactory) -> ProjectDir:
    """A tiny model that is built for the browser and for this machine; its store is for further builds of it."""
    project = make_project(tmp_path_factory.mktemp("tiny-web"), tiny_manifest("q4f32_1"), cached_checkpoint("llama"))
    seed(project.store)
    ran = {"fetch": 1, "inspect": 1, "quantize": 1, "config": 1, "lower": 2, "link": 2}
    assert project.build() == ran
    assert project.build() == {}
    return project
