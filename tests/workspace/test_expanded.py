"""The expanded manifest in the state directory: believed when this store's llmbuild wrote it, and not otherwise."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llmbuild.canonical import canonical_json
from llmbuild.engine.store import Store
from llmbuild.manifest.project import Project
from llmbuild.workspace.expanded import load_manifest
from llmbuild.workspace.tool_identities import TVM_MEMO, Toolchain
from tests.helpers.cli import TINY_MANIFEST


def project(root: Path) -> Project:
    store = Store(root / "store")
    return load_manifest(root / "buildfile.toml", Toolchain(store.stat_cache, memo=store.root / TVM_MEMO)).project


def load(root: Path) -> str:
    return project(root).name


@pytest.mark.parametrize("nested", [False, True])
def test_a_forged_manifest_in_the_state_directory_does_not_count(tmp_path: Path, nested: bool) -> None:
    (tmp_path / "buildfile.toml").write_text(TINY_MANIFEST)
    assert load(tmp_path) == "tiny"
    (place,) = (tmp_path / ".llmbuild").glob("project-*.json")
    right = place.read_bytes()
    assert load(tmp_path) == "tiny" and place.read_bytes() == right
    value = json.loads(right)
    value["project"]["name"] = "forged"
    value["project"]["root"] = str(tmp_path / "elsewhere")
    place.write_bytes(b"[" * 5000 if nested else canonical_json(value))
    assert load(tmp_path) == "tiny"
    assert place.read_bytes() == right


def test_the_cache_has_the_manifests_order(tmp_path: Path) -> None:
    """Messages list what a manifest has, the first time and later, in the order that its author chose."""
    other = '[models.another]\nsource = "checkpoint"\nconv-template = "LM"\n\n[metadata]'
    tables = (
        '\n[package.server]\n[package.a]\nkind = "server"\n[publish.hub]\nto = "hf:o/x"\n[publish.a]\nto = "hf:o/y"\n'
    )
    (tmp_path / "buildfile.toml").write_text(TINY_MANIFEST.replace("[metadata]", other) + tables)
    for _ in range(2):
        found = project(tmp_path)
        assert list(found.models) == ["tiny", "another"]
        assert list(found.packages) == ["server", "a"]
        assert list(found.publish) == ["hub", "a"]
