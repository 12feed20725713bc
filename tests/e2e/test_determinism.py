"""Two clones in different directories, with other hash seeds and other stores, give byte-identical dist trees."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.checkpoints import cached_checkpoint
from tests.helpers.cli import TINY_MANIFEST, make_project

MANIFEST = (
    TINY_MANIFEST.replace('["q4f32_1"]', '["q4f32_1", "q4f16_1"]').replace(
        '["x86_64-linux-cpu"]', '["x86_64-linux-cpu", "archive"]'
    )
    + """
[platforms.archive]
target = "x86_64-linux-cpu"
artifact = "tar"
system-lib-prefix = "tiny_{quantization}_"
"""
)


@pytest.mark.slow
def test_two_clones_give_the_same_bytes(tmp_path: Path) -> None:
    checkpoint = cached_checkpoint("llama3", dtype="bfloat16", shards=2)
    first = make_project(tmp_path / "a", MANIFEST, checkpoint)
    second = make_project(tmp_path / "b" / "deeper" / "with another name", MANIFEST, checkpoint)
    assert first.build("--jobs", "2", env={"PYTHONHASHSEED": "1"})["lower"] == 4
    assert second.build("--jobs", "1", env={"PYTHONHASHSEED": "4242"})["lower"] == 4
    left, right = first.snapshot(), second.snapshot()
    assert sorted(left) == sorted(right)
    assert [name for name in left if left[name] != right[name]] == []
    assert len([name for name in left if name.startswith("libs/")]) == 4


@pytest.mark.slow
def test_nothing_of_the_machine_is_in_the_artifacts(tmp_path: Path) -> None:
    project = make_project(tmp_path, TINY_MANIFEST, cached_checkpoint("llama-gqa"))
    project.build()
    for name, data in project.snapshot().items():
        assert str(tmp_path).encode() not in data, name
        assert b"/llmbuild/" not in data, name
