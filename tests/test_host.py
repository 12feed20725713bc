"""Other systems, played as far as a process can (tests/helpers/other_host.py): llmbuild plans there, or says that it cannot."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from llmbuild.cli.main import COMMANDS
from llmbuild.errors import ExitCode, ToolchainError
from llmbuild.host import require_host
from tests.helpers.checkpoints import cached_checkpoint
from tests.helpers.cli import TINY_MANIFEST, ProjectDir, Result, make_project

ROOT = Path(__file__).parent.parent
PLATFORMS = (
    '["x86_64-linux-cpu", "aarch64-macos-metal", "x86_64-linux-cuda", "wasm32-webgpu", "aarch64-android-adreno"]'
)
UNIX = ("linux-aarch64", "macos-arm64")


def on(system: str, project: ProjectDir, *arguments: str) -> Result:
    """The command in a process that is on the system."""
    environment = {**os.environ, "LLMBUILD_CACHE": str(project.store), "NO_COLOR": "1", "PYTHONPATH": str(ROOT)}
    script = str(ROOT / "tests" / "helpers" / "other_host.py")
    done = subprocess.run(
        [sys.executable, script, system, *arguments],
        cwd=project.root, env=environment, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    return Result(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def project(tmp_path: Path) -> ProjectDir:
    manifest = TINY_MANIFEST.replace('["x86_64-linux-cpu"]', PLATFORMS)
    return make_project(tmp_path, manifest, cached_checkpoint("llama"))


@pytest.mark.parametrize("system", UNIX)
def test_a_plan(system: str, project: ProjectDir) -> None:
    assert on(system, project, "--help").code == 0
    planned = on(system, project, "plan", "--json")
    assert planned.code == 0, planned.text
    here = json.loads(project.run("plan", "--json").out)
    assert [task["task"] for task in json.loads(planned.out)["tasks"]] == [task["task"] for task in here["tasks"]]
    for arguments in (["targets"], ["why", "fetch[tiny]"], ["lock", "--check"]):
        said = on(system, project, *arguments)
        # 1: something is stale.
        assert said.code in (0, 1), said.text
        assert said.err == ""


def test_a_build_without_what_macos_lacks(project: ProjectDir) -> None:
    built = on("macos-arm64", project, "build", "quantize", "config")
    assert built.code == 0, built.text
    assert (project.root / "dist/tiny-q4f32_1-MLC/mlc-chat-config.json").is_file()


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_says_that_it_does_not_run_on_windows(command: str, project: ProjectDir) -> None:
    said = on("windows", project, command)
    assert (said.code, said.out) == (ExitCode.TOOLCHAIN, "")
    assert said.err.startswith("error: llmbuild does not run on Windows\n")
    assert said.err.count("error") == 1


def test_what_windows_can_do(project: ProjectDir) -> None:
    for arguments in (["--help"], ["--version"], ["help"]):
        assert (on("windows", project, *arguments).code, on("windows", project, *arguments).err) == (0, "")
    code = (
        "from tests.helpers.other_host import become; become('windows')\n"
        "import llmbuild\n"
        "for call in (llmbuild.open, llmbuild.load):\n"
        "    try: call('.')\n"
        "    except llmbuild.LlmbuildError as error: print(error.what, error.exit_code)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    said = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert said.stdout == "llmbuild does not run on Windows 5\n" * 2


@pytest.mark.parametrize(
    ("platform", "named"), [("win32", "Windows"), ("emscripten", "a browser"), ("wasi", "WebAssembly")]
)
def test_a_system_without_locks_is_named(platform: str, named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmbuild.host.sys", SimpleNamespace(platform=platform))
    with pytest.raises(ToolchainError, match=f"llmbuild does not run on {named}"):
        require_host()


def test_linux_and_macos_are_systems_that_llmbuild_runs_on(monkeypatch: pytest.MonkeyPatch) -> None:
    for platform in ("linux", "darwin"):
        monkeypatch.setattr("llmbuild.host.sys", SimpleNamespace(platform=platform))
        require_host()
