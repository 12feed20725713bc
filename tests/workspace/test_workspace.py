"""`llmbuild.open`: the product as a library, used without a command line."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import llmbuild
from llmbuild.canonical import digest_file
from llmbuild.engine.events import Event
from llmbuild.errors import ExitCode, UsageError
from llmbuild.workspace.outcome import BuildError
from llmbuild.workspace.workspace import Workspace
from tests.helpers.checkpoints import cached_checkpoint
from tests.helpers.cli import TINY_MANIFEST, ProjectDir, make_project


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ProjectDir:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent.parent.parent))
    return make_project(tmp_path, checkpoint=cached_checkpoint("llama"))


@pytest.fixture
def workspace(project: ProjectDir) -> Iterator[Workspace]:
    with llmbuild.open(str(project.root), cache=str(project.store)) as opened:
        yield opened


def test_importing_llmbuild_loads_next_to_nothing() -> None:
    code = "import sys, llmbuild; print(sorted(name for name in sys.modules if name.startswith('llmbuild')))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "['llmbuild', 'llmbuild.version']"


def test_plan_build_and_plan_again(project: ProjectDir, workspace: Workspace) -> None:
    plan = workspace.plan()
    assert (plan.stale, len(plan.verdicts)) == (True, 6)
    assert not project.store.exists() or not list(project.store.glob("traces/*/*"))

    told: list[Event] = []
    outcome = workspace.build(jobs=2, on_event=told.append, events=str(project.root / "events"))
    assert outcome.ok
    lines = [event.to_json() for event in told]
    assert (lines[0]["type"], lines[-1]["type"], lines[-1]["ran"]) == ("plan-made", "summary", 6)
    assert len((project.root / "events").read_text().splitlines()) == len(told)

    weights, library = outcome.outputs
    assert weights.path == project.root / "dist/tiny-q4f32_1-MLC"
    assert [task.split("[")[0] for task in weights.tasks] == ["quantize", "config"]
    assert {name: digest_file(weights.path / name) for name in weights.files} == weights.files
    assert library.path == project.root / "dist/libs/tiny-q4f32_1-x86_64-linux-cpu.so"
    assert library.digest == digest_file(library.path) == library.files[library.path.name]

    assert not workspace.plan().stale
    again = workspace.build()
    assert again.outputs == outcome.outputs
    assert {one.status.value for one in again.result.outcomes.values()} == {"cached"}
    # The command finds the same.
    assert project.run("plan", "--check").code == 0

    # What changed since the workspace was opened is seen.
    library.path.unlink()
    assert [verdict.task.kind for verdict in workspace.plan().verdicts if verdict.state != "cached"] == ["link"]
    assert workspace.why("link").verdict.state == "restore"
    assert workspace.why("fetch").verdict.state == "cached"
    assert workspace.build("link").ok
    assert library.path.exists()
    assert workspace.plan("config", force=True).count("run") == 1


def test_lock_pins_and_upgrades(project: ProjectDir, workspace: Workspace) -> None:
    assert workspace.lock(check=True).stale
    assert not (project.root / "llmbuild.lock").exists()
    outcome = workspace.lock()
    assert (outcome.path, outcome.existed) == (project.root / "llmbuild.lock", False)
    assert "path:checkpoint" in [difference.section for difference in outcome.differences]
    assert not workspace.lock(check=True).stale
    (project.root / "checkpoint/config.json").write_text((project.root / "checkpoint/config.json").read_text() + " ")
    assert workspace.lock(check=True).stale
    assert [(one.item, one.how) for one in workspace.lock(upgrade="tiny").differences] == [("config.json", "changed")]
    assert workspace.lock(upgrade=True).differences == ()
    with pytest.raises(UsageError, match="no model 'other'"):
        workspace.lock(upgrade="other")
    with llmbuild.open(project.root, cache=project.store, locked=True) as locked:
        assert locked.plan().stale


def test_what_is_worth_knowing_is_told(project: ProjectDir, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here that a tool to be locked is not on this machine."""
    notes: list[str] = []
    monkeypatch.setenv("PATH", str(project.root))
    monkeypatch.delenv("EMSDK", raising=False)
    project.write(TINY_MANIFEST.replace("x86_64-linux-cpu", "wasm32-webgpu"))
    with llmbuild.open(project.root, cache=project.store, on_note=notes.append) as workspace:
        workspace.lock()
    (note,) = notes
    assert note.startswith("the linker of wasm32-webgpu is not recorded, it is not on this machine: ")


def test_report_is_of_the_last_build(project: ProjectDir, workspace: Workspace) -> None:
    with pytest.raises(UsageError, match="no build to report on"):
        workspace.report()
    workspace.build("fetch")
    assert [task.label for task in workspace.report().tasks] == ["fetch[tiny]"]
    assert workspace.last_build.is_file()


def test_why_prints_as_the_command_does(project: ProjectDir, workspace: Workspace) -> None:
    found = workspace.why("lower")
    assert found.verdict.state == "run"
    assert f"{found}\n" == project.run("why", "lower").out


def test_a_failed_task_is_an_error_with_what_was_built(project: ProjectDir, workspace: Workspace) -> None:
    told: list[Event] = []
    (project.root / "checkpoint/tokenizer.json").write_text("[")
    with pytest.raises(BuildError) as caught:
        workspace.build(keep_going=True, on_event=told.append)
    error = caught.value
    assert isinstance(error, llmbuild.LlmbuildError)
    assert error.what.startswith("config[tiny, q4f32_1] failed: ")
    assert error.exit_code == ExitCode.INPUT == error.outcome.errors[0].exit_code
    statuses = {label.split("[")[0]: one.status.value for label, one in error.outcome.result.outcomes.items()}
    assert (statuses["fetch"], statuses["config"]) == ("ran", "failed")
    # Half of a model's directory is not installed.
    assert error.outcome.outputs == () and not (project.root / "dist").exists()
    # The log of which listeners are told lies in the project; the record keeps the store's.
    (failed,) = [event for event in told if event.to_json()["type"] == "failed"]
    assert failed.failure.log is None or Path(failed.failure.log).is_relative_to(project.root / ".llmbuild/logs")


def test_names_are_those_of_the_manifest_one_or_several(project: ProjectDir) -> None:
    for names in ("tiny", ["tiny"], ("tiny",)):
        with llmbuild.open(project.root, models=names, cache=project.store) as opened:
            assert len(opened.plan("fetch").verdicts) == 1
    with pytest.raises(UsageError, match="tinny") as caught:
        llmbuild.open(project.root / "buildfile.toml", models="tinny")
    assert "tiny" in str(caught.value.fix)


def test_what_is_no_manifest_is_an_error_with_its_parts(tmp_path: Path) -> None:
    with pytest.raises(llmbuild.LlmbuildError) as caught:
        llmbuild.open(tmp_path)
    assert (caught.value.exit_code, caught.value.what) == (
        ExitCode.USAGE,
        f"there is no manifest {tmp_path / 'buildfile.toml'}",
    )
    (tmp_path / "buildfile.toml").write_text(TINY_MANIFEST.replace("chatml", "chatlm"))
    with pytest.raises(llmbuild.LlmbuildError, match="chatlm"):
        llmbuild.open(tmp_path, cache=tmp_path / "store")


def test_locked_and_offline_hold_as_for_commands(project: ProjectDir) -> None:
    with (
        llmbuild.open(project.root, cache=project.store, locked=True) as opened,
        pytest.raises(UsageError, match="there is no lock file"),
    ):
        opened.plan()


@pytest.mark.parametrize("jobs", [0, -1, 10**9])
def test_jobs_have_bounds(workspace: Workspace, jobs: int) -> None:
    with pytest.raises(UsageError, match="jobs must be 1 to "):
        workspace.build(jobs=jobs)
