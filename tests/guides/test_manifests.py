"""The manifest of each guide is one as it stands: other tests put a checkpoint of their own in the place of its source."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmbuild.manifest.load import load_project
from tests.helpers.guides import GUIDES, blocks


@pytest.mark.parametrize("guide", sorted(path.stem for path in GUIDES.glob("*.md")))
def test_it_loads(guide: str, tmp_path: Path) -> None:
    path = tmp_path / "buildfile.toml"
    path.write_text(blocks(guide, "toml")[0])
    project = load_project(path)
    assert project.matrix
