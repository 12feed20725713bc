"""Tools that are not here: a plan takes them as the lock file has them, and a build does what can be done."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import llmbuild
from llmbuild import linkers
from llmbuild.cli.main import main
from llmbuild.errors import ExitCode, LlmbuildError, ToolchainError
from llmbuild.manifest.lock import read_lock, write_lock
from llmbuild.programs import zig
from llmbuild.workspace.workspace import Workspace
from tests.helpers.checkpoints import cached_checkpoint
from tests.helpers.cli import ProjectDir, make_project

LINKER = "linker x86_64-linux-cpu"
LABEL = "[tiny, q4f32_1, x86_64-linux-cpu]"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> ProjectDir:
    """A project that was built and locked where all tools are."""
    place = tmp_path_factory.mktemp("built")
    project = make_project(place, checkpoint=cached_checkpoint("llama"))
    with opened(project) as workspace:
        workspace.build()
        workspace.lock()
    return project


def opened(project: ProjectDir) -> Workspace:
    return llmbuild.open(str(project.root), cache=str(project.store))


@pytest.fixture
def project(built: ProjectDir, tmp_path: Path) -> Iterator[ProjectDir]:
    """The project as `built` left it, with the outcome of a build taken back."""
    kept = {name: (built.root / name).read_bytes() for name in ("buildfile.toml", "llmbuild.lock")}
    history = {path: path.read_bytes() for path in (built.store / "projects").iterdir()}
    yield built
    for name, data in kept.items():
        (built.root / name).write_bytes(data)
    for path, data in history.items():
        path.write_bytes(data)


@pytest.fixture
def hidden(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Takes the linker away."""

    def lacking(*_: object) -> Any:
        raise ToolchainError("there is no linker", fix="`apt-get install lld`")

    return lambda: monkeypatch.setattr(linkers, "parts", lacking)


def edit(project: ProjectDir, old: str, new: str) -> None:
    path = project.root / "buildfile.toml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def relock(project: ProjectDir, identity: str | None) -> None:
    path = project.root / "llmbuild.lock"
    lock = read_lock(path)
    del lock.toolchain[LINKER]
    if identity is not None:
        lock.record_tool(LINKER, identity)
    write_lock(path, lock)


def states(workspace: Workspace) -> dict[str, str]:
    return {verdict.task.kind: verdict.state for verdict in workspace.plan().verdicts}


def test_states_are_exact_without_the_tool(project: ProjectDir, hidden: Callable[[], None]) -> None:
    with opened(project) as workspace:
        before = [(one.task.label, one.state, one.action) for one in workspace.plan().verdicts]
        hidden()
        plan = workspace.plan()
        assert [(one.task.label, one.state, one.action) for one in plan.verdicts] == before
        assert not plan.stale
        link = workspace.why("link")
        locked = read_lock(project.root / "llmbuild.lock").toolchain[LINKER]
        assert link.verdict.as_locked == {"linker": locked}
        assert f"the linker is taken as locked: {locked}" in str(link)
        # Nothing has to run, so that nothing is lacking.
        assert {one.status.value for one in workspace.build().result.outcomes.values()} == {"cached"}
        with llmbuild.open(str(project.root), cache=str(project.store), locked=True) as strict:
            assert not strict.plan().stale


def test_what_other_projects_built_with_the_locked_tool_counts(
    project: ProjectDir, tmp_path: Path, hidden: Callable[[], None]
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(project.root, copy, symlinks=True, ignore=shutil.ignore_patterns(".llmbuild", "dist"))
    hidden()
    with llmbuild.open(str(copy), cache=str(project.store)) as workspace:
        assert states(workspace) == {
            "fetch": "cached",
            "inspect": "cached",
            "quantize": "restore",
            "config": "restore",
            "lower": "cached",
            "link": "restore",
        }
        assert workspace.build().ok
    assert (copy / "dist/libs/tiny-q4f32_1-x86_64-linux-cpu.so").exists()


def test_another_locked_version_is_a_change(project: ProjectDir, hidden: Callable[[], None]) -> None:
    hidden()
    relock(project, "cc: gcc 99.1")
    with opened(project) as workspace:
        verdict = workspace.why("link").verdict
        assert verdict.state == "run" and verdict.impossible
        assert "gcc 99.1" in str(workspace.why("link"))
        with pytest.raises(ToolchainError, match="there is no linker") as caught:
            workspace.build()
    assert caught.value.where == "platform x86_64-linux-cpu"


def test_a_tool_that_nobody_locked_blocks_its_task(
    project: ProjectDir, hidden: Callable[[], None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hidden()
    relock(project, None)
    monkeypatch.chdir(project.root)
    monkeypatch.setenv("LLMBUILD_CACHE", str(project.store))
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["plan"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("tiny: 6 tasks: 1 blocked, 5 cached\n\n  blocked  link")
    assert "there is no linker (`apt-get install lld`)" in out
    assert main(["plan", "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert (value["stale"], value["counts"]["blocked"]) == (True, 1)
    [link] = [one for one in value["tasks"] if one["state"] == "blocked"]
    assert [one["reason"] for one in link["reasons"]] == ["blocked"]
    assert link["missing"] == [{"what": "there is no linker", "why": None, "fix": "`apt-get install lld`"}]
    assert main(["plan", "--format", "github-matrix", "--stale"]) == 0
    assert [one["stale"] for one in json.loads(capsys.readouterr().out)["include"]] == [True]
    assert main(["plan", "--check"]) == 1
    assert main(["why", "link"]) == 1
    assert "is blocked" in capsys.readouterr().out
    for command in (["plan", "--strict"], ["build"]):
        assert main(command) == ExitCode.TOOLCHAIN
        assert "error: platform x86_64-linux-cpu: there is no linker\n" in capsys.readouterr().err


def test_keep_going_builds_all_the_rest(project: ProjectDir, hidden: Callable[[], None]) -> None:
    hidden()
    edit(
        project, 'platforms = ["x86_64-linux-cpu"]', 'platforms = ["x86_64-linux-cpu"]\nmetadata.prefill-chunk-size = 8'
    )
    with opened(project) as workspace:
        assert states(workspace)["lower"] == "run"
        with pytest.raises(ToolchainError):
            workspace.build()
        assert states(workspace)["lower"] == "run"
        with pytest.raises(LlmbuildError) as caught:
            workspace.build(keep_going=True)
        assert caught.value.exit_code == ExitCode.TOOLCHAIN
        assert f"link{LABEL} failed: there is no linker" in caught.value.what
        assert states(workspace) == dict.fromkeys(("fetch", "inspect", "quantize", "config", "lower"), "cached") | {
            "link": "run"
        }


PLATFORMS = (
    "x86_64-linux-cpu", "x86_64-linux-cpu-native", "aarch64-linux-cpu", "x86_64-windows-cpu", "aarch64-windows-cpu",
    "x86_64-linux-cuda", "aarch64-linux-cuda", "x86_64-linux-rocm", "x86_64-linux-rocm-gfx942", "x86_64-linux-opencl",
    "x86_64-windows-opencl", "x86_64-linux-vulkan", "x86_64-windows-vulkan", "aarch64-linux-mali", "x86_64-macos-metal",
    "aarch64-macos-metal", "aarch64-macabi-metal", "aarch64-ios-metal", "aarch64-android-opencl", "aarch64-android-adreno",
    "wasm32-webgpu",
)  # fmt: skip


def test_a_machine_with_python_only_plans_21_targets_and_runs_no_tool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def forbidden(*words: object, **_: object) -> Any:
        raise AssertionError(f"a plan ran {words}")

    root = make_project(tmp_path / "project", checkpoint=cached_checkpoint("llama")).root
    monkeypatch.chdir(root)
    manifest = root / "buildfile.toml"
    platforms = json.dumps(PLATFORMS)
    manifest.write_text(manifest.read_text().replace('["x86_64-linux-cpu"]', platforms).replace("q4f32_1", "q4f16_1"))
    for name in ("CC", "CUDA_HOME", "CUDA_PATH", "ROCM_PATH", "ANDROID_NDK", "ANDROID_NDK_HOME", "EMSDK"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    monkeypatch.setenv("LLMBUILD_CACHE", str(tmp_path / "store"))
    monkeypatch.setattr(zig, "_program", lambda: None)
    monkeypatch.setattr("llmbuild.linkers.tools.DEBIAN", tmp_path / "empty")
    monkeypatch.setattr(subprocess, "Popen", forbidden)
    lock = root / "llmbuild.lock"

    assert main(["plan", "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    links = [one for one in value["tasks"] if one["kind"] == "link"]
    assert len(links) == 21
    blocked = {one["platform"] for one in links if one["state"] == "blocked"}
    assert blocked and all(one["missing"] for one in links if one["state"] == "blocked")

    # A lock from machines that have the tools.
    written = read_lock(lock)
    for name in PLATFORMS:
        written.record_tool(f"linker {name}", "some linker 1.0")
        written.record_tool(f"device compiler {name}", "some compiler 2.0")
    write_lock(lock, written)
    assert main(["plan", "--json", "--strict"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert value["counts"]["blocked"] == 0
    links = {one["platform"]: one for one in value["tasks"] if one["kind"] == "link"}
    assert {name for name, one in links.items() if one["as-locked"] == {"linker": "some linker 1.0"}} == blocked
    assert main(["plan", "--format", "github-matrix"]) == 0
    include = json.loads(capsys.readouterr().out)["include"]
    assert [(one["platform"], one["stale"]) for one in include] == [(name, True) for name in PLATFORMS]
    assert all(one["install"]["pip"].startswith("llmbuild") for one in include)
