"""What is not loaded, before TVM is imported."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from llmbuild.errors import ToolchainError
from llmbuild.runtime.library import load_library


def test_a_library_runs_on_the_installed_tvm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = tmp_path / "lib.so"
    library.write_bytes(b"")
    monkeypatch.setenv("TVM_LIBRARY_PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "tvm", None)
    with pytest.raises(ToolchainError, match="the variable TVM_LIBRARY_PATH is set"):
        load_library(library)
