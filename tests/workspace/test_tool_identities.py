"""Tools as inputs: what identifies them, and that nothing heavy is imported to learn it."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import pytest

from llmbuild.canonical import digest_file
from llmbuild.engine.registry import KIND_NAMES, load_kind
from llmbuild.errors import ToolchainError
from llmbuild.workspace.tool_identities import Toolchain


class Digests:
    """Hashes every file each time."""

    def digest(self, path: Path) -> str:
        return digest_file(path)


def test_source_files_are_named_relative_to_llmbuild_and_hold_data_too() -> None:
    files = Toolchain(Digests()).source_files(["llmbuild.linkers", "llmbuild.tasks.link", "llmbuild.conversation"])
    assert {"linkers/elf.py", "linkers/__init__.py", "tasks/link.py"} <= files.keys()
    assert any(name.startswith("conversation/") and not name.endswith(".py") for name in files)
    assert not [name for name in files if "__pycache__" in name or name.startswith("tasks/lower")]


@pytest.mark.parametrize("kind", KIND_NAMES)
def test_every_declared_source_of_a_kind_exists(kind: str) -> None:
    assert all(Toolchain(Digests()).source_files([name]) for name in load_kind(kind).sources)


def test_versions_agree_with_importlib_metadata() -> None:
    toolchain = Toolchain(Digests())
    for name in ("numpy", "ml_dtypes", "gguf", "apache-tvm"):
        assert toolchain.version(name) == importlib.metadata.version(name)


def test_the_first_distribution_on_the_path_counts(tmp_path: Path) -> None:
    for place, version in (("a", "2.0"), ("b", "1.0")):
        (tmp_path / place / f"Some_Tool-{version}.dist-info").mkdir(parents=True)
    toolchain = Toolchain(Digests(), [str(tmp_path / "missing"), str(tmp_path / "a"), str(tmp_path / "b")])
    assert toolchain.identity("some-tool") == "2.0"


def test_a_missing_package_is_a_clear_error() -> None:
    with pytest.raises(ToolchainError, match="the Python package no-such-tool is not installed"):
        Toolchain(Digests()).identity("no-such-tool")


def test_the_libraries_of_tvm_are_part_of_its_identity() -> None:
    version, _, digest = Toolchain(Digests()).identity("apache-tvm-ffi").partition("+sha256.")
    assert version == importlib.metadata.version("apache-tvm-ffi")
    assert len(digest) == 64
