"""What is not loaded, before TVM is imported."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from llmbuild.errors import ToolchainError, UsageError
from llmbuild.runtime.library import configure_threads, load_library


def test_a_library_runs_on_the_installed_tvm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = tmp_path / "lib.so"
    library.write_bytes(b"")
    monkeypatch.setenv("TVM_LIBRARY_PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "tvm", None)
    with pytest.raises(ToolchainError, match="the variable TVM_LIBRARY_PATH is set"):
        load_library(library)


def test_a_library_for_another_device_is_not_loaded(tmp_path: Path) -> None:
    library = tmp_path / "lib-cuda.so"
    library.write_bytes(b"")
    (tmp_path / "lib-cuda.so.json").write_text("{}")
    with pytest.raises(UsageError, match="cannot be loaded on this machine") as error:
        load_library(library)
    assert error.value.why == "it is for another device than a CPU, and this TVM runs on the CPU"


def test_threads_that_run_cannot_become_more() -> None:
    from tvm import get_global_func

    running = get_global_func("runtime.NumThreads")()
    with pytest.raises(UsageError, match="999 threads cannot be had any more"):
        configure_threads(999)
    configure_threads(running)
    assert get_global_func("runtime.NumThreads")() == running


def test_there_is_at_least_one_thread() -> None:
    with pytest.raises(UsageError, match="1 or more, not 0"):
        configure_threads(0)
