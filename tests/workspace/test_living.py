"""What a collection keeps of a project: the labels of the manifests that are there."""

from __future__ import annotations

from pathlib import Path

from llmbuild.engine.store import Store
from llmbuild.workspace.expanded import load_manifest
from llmbuild.workspace.living import living
from llmbuild.workspace.tool_identities import TVM_MEMO, Toolchain
from tests.helpers.checkpoints import cached_checkpoint
from tests.helpers.cli import TINY_MANIFEST, make_project


def test_what_is_left_of_a_project(tmp_path: Path) -> None:
    seal = Store(tmp_path / "store").seal
    assert living(seal, str(tmp_path / "gone")) is None
    assert living(seal, str(tmp_path)) is None
    (tmp_path / "buildfile.toml").write_text("")
    labels = living(seal, str(tmp_path))
    assert labels is not None
    assert "anything" in labels
    (tmp_path / ".llmbuild").mkdir()
    (tmp_path / ".llmbuild" / "project-0.json").write_text("{")
    labels = living(seal, str(tmp_path))
    assert labels is not None
    assert "anything" in labels


def test_each_manifest_of_a_directory_keeps_its_own(tmp_path: Path) -> None:
    """A store knows buildfile.toml by the directory, and another manifest by its path."""
    project = make_project(tmp_path, TINY_MANIFEST, cached_checkpoint("llama"))
    second = project.root / "second.toml"
    store = Store(project.store)
    seal = store.seal
    second.write_text(TINY_MANIFEST.replace("[models.tiny]", "[models.other]").replace('["tiny"]', '["other"]'))
    for name in ("buildfile.toml", "second.toml"):
        load_manifest(project.root / name, Toolchain(store.stat_cache, memo=store.root / TVM_MEMO))
    both, own = living(seal, str(project.root)), living(seal, str(second))
    assert both is not None
    assert own is not None
    assert "config[tiny, q4f32_1]" in both
    assert "config[other, q4f32_1]" in both
    assert "config[other, q4f32_1]" in own
    assert "config[tiny, q4f32_1]" not in own
    # One that is wrong now keeps what it had; one that is gone keeps nothing.
    second.write_text("[models")
    own = living(seal, str(second))
    assert own is not None
    assert "config[other, q4f32_1]" in own
    second.unlink()
    assert living(seal, str(second)) is None
    both = living(seal, str(project.root))
    assert both is not None
    assert "config[other, q4f32_1]" not in both
