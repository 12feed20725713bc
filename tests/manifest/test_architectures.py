"""Reading the files of a project's own architectures."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmbuild.errors import InputError
from llmbuild.manifest.architectures import own_files, read_architecture, text_of


def test_the_files_of_a_project(tmp_path: Path) -> None:
    root = tmp_path / "project"
    assert own_files(root) == []
    (root / "architectures").mkdir(parents=True)
    for name in ("b", "a", "not-a-module", "__init__"):
        (root / f"architectures/{name}.py").write_text(name)
    (root / "architectures/notes.txt").write_text("")
    (root / "architectures/d.py").mkdir()
    (tmp_path / "c.py").write_text("")
    (root / "architectures/c.py").symlink_to(tmp_path / "c.py")
    assert own_files(root) == ["a", "b"]
    assert text_of("a", read_architecture(root, "a")) == "a"


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    (tmp_path / "architectures").mkdir()
    with pytest.raises(InputError, match="cannot be read"):
        read_architecture(tmp_path, "gone")
    (tmp_path / "architectures/large.py").write_bytes(b"#" * ((1 << 20) + 1))
    with pytest.raises(InputError, match="is too large for an architecture"):
        read_architecture(tmp_path, "large")
    with pytest.raises(InputError, match="is not UTF-8"):
        text_of("latin", b"\xff")
