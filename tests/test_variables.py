"""The variables that stand in for options: typed, after the option and before the settings, and all in one document."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import llmbuild
from llmbuild.cli.main import main
from llmbuild.engine.settings import default_jobs
from llmbuild.errors import LlmbuildError, UsageError
from llmbuild.variables import flag, jobs
from llmbuild.workspace.options import Options

ROOT = Path(__file__).parent.parent
MANIFEST = '[models.a]\npreset = "smollm2_135m"\n[[build]]\nquantizations = ["q4f32_1"]\nplatforms = ["host"]\n'


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", False),
        ("1", True),
        ("TRUE", True),
        ("on", True),
        ("yes", True),
        ("0", False),
        ("off", False),
        ("No", False),
    ],
)
def test_a_switch(text: str, value: bool) -> None:
    assert flag("LLMBUILD_OFFLINE", {"LLMBUILD_OFFLINE": text}) is value
    assert flag("LLMBUILD_OFFLINE", {}) is False


@pytest.mark.parametrize("text", ["2", "nope", " 1", "y"])
def test_another_word_is_no_switch(text: str) -> None:
    with pytest.raises(UsageError, match=r"\$LLMBUILD_LOCKED is neither true nor false"):
        flag("LLMBUILD_LOCKED", {"LLMBUILD_LOCKED": text})


@pytest.mark.parametrize("text", ["0", "-1", "1025", "many", "4.0", "٤", "1" * 5000])
def test_what_is_no_number_of_jobs(text: str) -> None:
    with pytest.raises(UsageError, match=r"\$LLMBUILD_JOBS must be a whole number from 1 to 1024"):
        jobs({"LLMBUILD_JOBS": text})


def test_jobs_go_before_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("LLMBUILD_JOBS", raising=False)
    (tmp_path / "llmbuild").mkdir()
    (tmp_path / "llmbuild" / "config.toml").write_text("jobs = 3\n")
    assert default_jobs() == 3
    monkeypatch.setenv("LLMBUILD_JOBS", "7")
    assert default_jobs() == 7


def test_an_option_goes_before_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMBUILD_OFFLINE", "1")
    monkeypatch.setenv("LLMBUILD_LOCKED", "yes")
    assert Options().decided() == Options(offline=True, locked=True)
    assert Options(offline=False, locked=False).decided() == Options(offline=False, locked=False)


def test_commands_and_python_obey_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LLMBUILD_CACHE", str(tmp_path / "store"))
    Path("buildfile.toml").write_text(MANIFEST)
    monkeypatch.setenv("LLMBUILD_LOCKED", "1")
    assert main(["plan"]) == 2
    assert "--locked forbids" in capsys.readouterr().err
    assert main(["plan", "--no-locked"]) == 0
    with llmbuild.open(tmp_path) as workspace, pytest.raises(LlmbuildError, match="there is no lock file"):
        workspace.plan()
    with llmbuild.open(tmp_path, locked=False) as workspace:
        assert workspace.plan().verdicts
    monkeypatch.setenv("LLMBUILD_LOCKED", "perhaps")
    assert main(["plan"]) == 2
    assert "$LLMBUILD_LOCKED is neither true nor false" in capsys.readouterr().err
    Path("buildfile.toml").write_text(
        MANIFEST.replace('preset = "smollm2_135m"', 'source = "hf:org/name"\nconv-template = "chatml"')
    )
    monkeypatch.setenv("LLMBUILD_LOCKED", "")
    monkeypatch.setenv("LLMBUILD_OFFLINE", "1")
    assert main(["plan"]) == 4
    assert "--offline forbids" in capsys.readouterr().err


def test_the_document_has_every_variable_of_llmbuild() -> None:
    sources = (path.read_text(encoding="utf-8") for path in (ROOT / "llmbuild").rglob("*.py"))
    used = {name for text in sources for name in re.findall(r"LLMBUILD_[A-Z_]*[A-Z]", text)}
    table = (ROOT / "docs" / "environment.md").read_text(encoding="utf-8")
    rows = [line.split(" | ")[0] for line in table.splitlines() if line.startswith("| `LLMBUILD_")]
    assert set(re.findall(r"`(LLMBUILD_[A-Z_]+)`", " ".join(rows))) == used
