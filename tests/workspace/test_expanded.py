"""The expanded manifest in the state directory: believed when this store's llmbuild wrote it, and not otherwise."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llmbuild.canonical import canonical_json
from llmbuild.engine.store import Store
from llmbuild.workspace.expanded import load_manifest
from llmbuild.workspace.tool_identities import TVM_MEMO, Toolchain
from tests.helpers.cli import TINY_MANIFEST


def load(root: Path) -> str:
    store = Store(root / "store")
    return load_manifest(root / "buildfile.toml", Toolchain(store.stat_cache, memo=store.root / TVM_MEMO)).project.name


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
