"""What is not loaded, before TVM is imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from llmbuild.errors import ToolchainError, UsageError
from llmbuild.runtime.library import _cpus, configure_threads, load_library
from tests.helpers.cli import ProjectDir


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


@pytest.mark.parametrize("number", [0, -1, 1025, 999_999_999])
def test_threads_have_bounds(number: int) -> None:
    with pytest.raises(UsageError, match=f"must be 1 to 1024, not {number}"):
        configure_threads(number)


@pytest.mark.parametrize("text", ["0", "1025", "999999999", "-1", "many", "٤", "1e9"])
def test_threads_of_the_environment_have_bounds(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TVM_NUM_THREADS", text)
    with pytest.raises(UsageError, match=f"must be a whole number from 1 to 1024, not '{text}'"):
        configure_threads(None)


@pytest.mark.parametrize(("text", "number"), [("", "7"), ("1024", "1024"), ("3", "3")])
def test_an_empty_variable_stands_for_every_core(text: str, number: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TVM_NUM_THREADS", text)
    monkeypatch.setattr("llmbuild.runtime.library._cpus", lambda: 7)
    configure_threads(None)
    assert os.environ["TVM_NUM_THREADS"] == number


WAITING = """
import sys, time
from pathlib import Path
from llmbuild.runtime.library import _cpus, configure_threads, load_library
from tests.helpers.cli import ProjectDir
from llmbuild.runtime.session import Session
from llmbuild.runtime.weights import load_parameters

configure_threads(None)
library = load_library(Path(sys.argv[1]))
session = Session(library, load_parameters(library, Path(sys.argv[2])), capacity=64)
session.add()
session.prefill([1] * 32)
used = 0.0
for _ in range(20):
    session.decode(1)
    before = time.process_time()
    time.sleep(0.02)
    used += time.process_time() - before
print(used / 0.4)
"""
"""The share of a CPU that a process uses between steps, which lie 20 ms apart."""


@pytest.mark.skipif(_cpus() < 2, reason="a single thread waits for nobody")
def test_threads_without_work_sleep(built: ProjectDir, model_dir: Path) -> None:
    (library,) = (built.root / "dist/libs").glob("*.so")
    shares = {}
    for spins in ("", "300000"):
        environment = {**os.environ, "TVM_NUM_THREADS": "2", **({"TVM_THREAD_POOL_SPIN_COUNT": spins} if spins else {})}
        done = subprocess.run(
            [sys.executable, "-c", WAITING, str(library), str(model_dir)],
            env=environment, check=True, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        shares[spins] = float(done.stdout)
    assert shares[""] < shares["300000"] / 2
