"""What weights are calibrated with and on: the file that a manifest names, and this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmbuild.cli.main import main
from llmbuild.errors import ExitCode
from tests.helpers.checkpoints import cached_checkpoint
from tests.helpers.cli import TINY_MANIFEST, ProjectDir, make_project

CALIBRATED = f"""{TINY_MANIFEST}
[quantizations.q4f32_1]
method = "calibrated"
"""


def made(tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> ProjectDir:
    project = make_project(
        tmp_path, f'{CALIBRATED}[quality]\ncalibration-text = "{text}"\n', cached_checkpoint("llama")
    )
    monkeypatch.chdir(project.root)
    monkeypatch.setenv("LLMBUILD_CACHE", str(project.store))
    return project


@pytest.mark.parametrize(
    ("near", "fix"), [("novel.txt", "did you mean 'novel.txt'?"), ("x", "remove calibration-text")]
)
def test_a_text_that_is_not_there(
    near: str, fix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project = made(tmp_path, "nvel.txt", monkeypatch)
    (project.root / near).write_text("Once.")
    assert main(["plan"]) == ExitCode.USAGE
    said = " ".join(capsys.readouterr().err.split())
    assert "'nvel.txt' is no file" in said
    assert "buildfile.toml:20: quality.calibration-text" in said
    assert fix in said


def test_a_machine_of_another_kind_says_how_to_come_by_the_statistics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("llmbuild.workspace.observe.calibrates_here", lambda: False)
    project = made(tmp_path, "novel.txt", monkeypatch)
    (project.root / "novel.txt").write_text("Once.")
    assert main(["plan"]) == ExitCode.OK
    assert "this machine cannot calibrate weights" in " ".join(capsys.readouterr().out.split())
    assert main(["build", "quantize"]) != ExitCode.OK
    assert "llmbuild cache export" in " ".join(capsys.readouterr().err.split())
