"""Finding the program of the `ziglang` package, and its version."""

from __future__ import annotations

import importlib.machinery
import importlib.metadata
import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmbuild.programs import zig
from llmbuild.programs.run import Tool


@pytest.fixture(autouse=True)
def package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """Where an installed ziglang would have its program."""
    spec = importlib.machinery.ModuleSpec("ziglang", None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path / "empty"), str(tmp_path)]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec if name == "ziglang" else None)
    for remembered in (zig._program, zig._version):
        remembered.cache_clear()
    yield tmp_path
    for remembered in (zig._program, zig._version):
        remembered.cache_clear()


def test_no_package_or_one_without_a_program(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert zig.zig("cc") is None
    zig._program.cache_clear()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert zig.zig("cc") is None


@pytest.mark.parametrize("name", ["zig", "zig.exe"])
def test_a_subcommand_has_the_version_of_the_package(package: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    (package / name).touch()
    monkeypatch.setattr(importlib.metadata, "version", {"ziglang": "0.17.1"}.__getitem__)
    command = (str(package / name), "ld.lld")
    assert zig.zig("ld.lld") == Tool(command, "lld", called="zig ld.lld", version="0.17.1")
    found = zig.zig("cc", "zig")
    assert found is not None and (found.kind, found.name) == ("zig", "zig cc")


def test_a_package_without_metadata_is_asked(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    (package / "zig").write_text('#!/bin/sh\ntest "$1" = version && echo 0.16.0\n')
    (package / "zig").chmod(0o755)
    found = zig.zig("ld.lld")
    assert found is not None and found.version == "0.16.0"
