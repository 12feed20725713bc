"""The tiny model of tests/conftest.py, loaded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import llmbuild
from llmbuild.runtime.model import Model


@pytest.fixture
def model(model_dir: Path) -> Iterator[Model]:
    with llmbuild.load(model_dir, threads=1, seed=1) as loaded:
        yield loaded
