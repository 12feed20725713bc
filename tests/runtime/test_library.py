"""What is not loaded, before TVM is imported."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from llmbuild.errors import ToolchainError
from llmbuild.runtime.library import load_library


@pytest.mark.parametrize("name", ["TVM_LIBRARY_PATH", "TVM_USE_RUNTIME_LIB"])
def test_a_library_runs_on_the_installed_tvm(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = tmp_path / "lib.so"
    library.write_bytes(b"")
    monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setitem(sys.modules, "tvm", None)
    with pytest.raises(ToolchainError, match=f"the variable {name} is set"):
        load_library(library)
