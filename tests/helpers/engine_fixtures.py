"""Fixtures of all tests that build with the test kinds: a store, a project, and the kinds themselves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from llmbuild.engine.store import Store
from tests.helpers import engine_kinds

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(autouse=True)
def kinds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LLMBUILD_TASK_MODULES", engine_kinds.MODULE)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv(engine_kinds.RUNS, str(tmp_path / "runs"))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path / "store")
    yield opened
    opened.close()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    path = tmp_path / "project"
    path.mkdir()
    return path
