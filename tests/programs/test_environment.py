"""What tasks and programs see of the environment: the table's names, and those of a target, whose values are in keys."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from llmbuild.engine.action import Action
from llmbuild.engine.store import Store
from llmbuild.engine.task import Task
from llmbuild.errors import ToolchainError
from llmbuild.executors.local import LocalExecutor
from llmbuild.executors.processes import environment_of
from llmbuild.programs.environment import CONSTANTS, CREDENTIALS, OWN, TABLE, VARIABLE, identity, seen, wrong_name
from llmbuild.programs.run import Tool, ask_tool, run_tool
from tests.helpers.engine_build import build
from tests.helpers.engine_fixtures import kinds, store

__all__ = ["kinds", "store"]

CHANGE_RESULTS = (
    # Loaders and linkers.
    *("LD_RUN_PATH", "LD_LIBRARY_PATH", "LD_PRELOAD", "LDEMULATION", "GNUTARGET", "LD_AS_NEEDED", "LLD_REPRODUCE"),
    *("DYLD_LIBRARY_PATH", "DYLD_INSERT_LIBRARIES", "MACOSX_DEPLOYMENT_TARGET", "SDKROOT", "LINK", "_LINK_", "LIB"),
    # Compilers.
    *("COMPILER_PATH", "LIBRARY_PATH", "GCC_EXEC_PREFIX", "CPATH", "C_INCLUDE_PATH", "CPLUS_INCLUDE_PATH"),
    *("COLLECT_GCC", "COLLECT_GCC_OPTIONS", "COLLECT_LTO_WRAPPER", "DEPENDENCIES_OUTPUT", "SOURCE_DATE_EPOCH"),
    *("CCC_OVERRIDE_OPTIONS", "CCC_ADD_ARGS", "CFLAGS", "LDFLAGS", "INCLUDE", "CL", "_CL_"),
    *("NVCC_PREPEND_FLAGS", "NVCC_APPEND_FLAGS", "NVCC_CCBIN", "CUDA_FORCE_PTX_JIT"),
    *("EMCC_CFLAGS", "EMMAKEN_CFLAGS", "EMCC_FORCE_STDLIBS", "EM_COMPILER_WRAPPER", "EM_LLVM_ROOT", "NODE_OPTIONS"),
    # TVM, numbers, Python.
    *("TVM_LIBRARY_PATH", "TVM_USE_RUNTIME_LIB", "TVM_COMPILE_FORCE_FALLBACK", "TVM_NUM_THREADS", "TVM_BIND_THREADS"),
    "TVM_THREAD_POOL_SPIN_COUNT",
    *("OMP_NUM_THREADS", "MKL_NUM_THREADS", "PYTHONOPTIMIZE", "PYTHONSTARTUP", "PYTHONINSPECT", "PYTHONWARNINGS"),
)
"""Variables that add to commands, name other files, or change what a library does."""


def test_what_changes_results_is_not_in_the_table() -> None:
    assert set(CHANGE_RESULTS).isdisjoint(TABLE)
    assert not any(name.startswith(OWN) for name in CHANGE_RESULTS)
    assert all(reason for reason in TABLE.values())


@pytest.mark.parametrize("name", CHANGE_RESULTS)
def test_a_program_does_not_see_what_changes_results(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "cc"
    program.write_text("#!/bin/sh\nenv\n")
    program.chmod(0o755)
    if not name.startswith(("LD_", "DYLD_")):  # The shell's own loader would read those.
        monkeypatch.setenv(name, "changed")
    else:
        monkeypatch.setitem(os.environ, name, "changed")
    tool = Tool((str(program),), "cc")
    assert "changed" not in run_tool(tool, [], tmp_path, makes="cc")
    assert "changed" not in ask_tool(tool, "--version")
    for kind in ("quantize", "config", "lower", "runtime", "link"):
        assert name not in environment_of(Action(kind, 1, {}, {}, {}))
    assert environment_of(Action("fetch", 1, {}, {}, {}))[name] == "changed"


def test_workers_see_the_table_and_the_constants(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMPILER_PATH", "/elsewhere")
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "7")
    monkeypatch.setenv("FURTHER", "value")
    task = Task("tell", "look", 1, {"name": "a"}, {}, {VARIABLE + "FURTHER": identity("FURTHER")})
    result, _ = build(store, [task], executor=LocalExecutor(store))
    trace = result.outcomes["look"].trace
    assert trace is not None
    entry = store.cas.get_tree(trace.output).files[0]
    environ = json.loads(store.cas.get_bytes(entry.digest))["environment"]
    assert "COMPILER_PATH" not in environ and environ["FURTHER"] == "value"
    assert {name: environ[name] for name in CONSTANTS} == CONSTANTS
    # The interpreter and the shell of a system may add their own.
    assert {name for name in environ if not name.startswith(OWN)} - {*TABLE, *CONSTANTS, "FURTHER"} <= {"LC_CTYPE"}


def test_a_variable_counts_by_its_value_which_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FURTHER", raising=False)
    assert identity("FURTHER") == "unset" and seen(["FURTHER"]) == seen()
    monkeypatch.setenv("FURTHER", "")
    empty = identity("FURTHER")
    monkeypatch.setenv("FURTHER", "a word")
    assert len({"unset", empty, identity("FURTHER")}) == 3 and "word" not in identity("FURTHER")
    assert seen(["FURTHER"]) == {**seen(), "FURTHER": "a word"}


def test_a_variable_that_changed_since_the_plan_stops_the_action(monkeypatch: pytest.MonkeyPatch) -> None:
    action = Action("link", 1, {}, {}, {VARIABLE + "FURTHER": "unset"})
    monkeypatch.delenv("FURTHER", raising=False)
    assert "FURTHER" not in environment_of(action)
    monkeypatch.setenv("FURTHER", "now set")
    with pytest.raises(ToolchainError, match="the variable FURTHER has another value than in the action's key"):
        environment_of(action)


@pytest.mark.parametrize("name", ["HF_TOKEN", *CREDENTIALS])
def test_a_program_does_not_see_credentials(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "cc"
    program.write_text("#!/bin/sh\nenv\n")
    program.chmod(0o755)
    monkeypatch.setenv(name, "5entinel")
    monkeypatch.setenv("LLMBUILD_OTHER", "seen")
    said = run_tool(Tool((str(program),), "cc"), [], tmp_path, makes="cc")
    assert "LLMBUILD_OTHER=seen" in said
    assert "5entinel" not in said


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("NVCC_CCBIN", None),
        ("x=y", "cannot be the name of a variable"),
        ("TWO\n", "cannot be the name of a variable"),
        ("", "cannot be the name of a variable"),
        ("PYTHONHASHSEED", "is the same in every task"),
        ("PATH", "is seen by every task"),
        ("LLMBUILD_CACHE", "is seen by every task"),
        ("LLMBUILD_REGISTRY_PASSWORD", "is a credential, which no task sees"),
    ],
)
def test_names_that_a_target_may_add(name: str, wrong: str | None) -> None:
    said = wrong_name(name)
    assert said is None if wrong is None else said is not None and said.endswith(wrong)
