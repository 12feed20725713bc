"""What plan, build, why and report say of a wrong command line or project, at 80 and 120 columns, to the character.

With a terminal only the colour of "error:" is added, which tests/report/test_errors.py shows.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from llmbuild.cli.main import main
from tests.helpers import golden
from tests.helpers.cli import TINY_MANIFEST

GOLDEN = Path(__file__).parent / "golden"

COMMANDS: dict[str, tuple[str, ...]] = {
    "no manifest": ("plan", "--file", "nowhere.toml"),
    "an unknown option": ("plan", "--formt", "json"),
    "an unknown model": ("plan", "--model", "tinny"),
    "an unknown platform": ("plan", "--platform", "x86_64-linux-gpu"),
    "an unknown quantization": ("build", "--quantization", "q4f32"),
    "why without a task": ("why",),
    "no jobs": ("build", "--jobs", "0"),
    "jobs that are no number": ("build", "--jobs", "many"),
    "memory that is no size": ("build", "--memory", "lots"),
    "no build to report on": ("report",),
    "a file of events that is not there": ("report", "--events", "none.ndjson"),
    "a file that has no events": ("report", "--events", "buildfile.toml"),
    "two forms of a report": ("report", "--json", "--markdown"),
    "a report that cannot be written": ("report", "--events", "events.ndjson", "--html", "no/page.html"),
}
WITH_SOURCE: dict[str, tuple[str, ...]] = {
    "an unknown task": ("plan", "quantise"),
    "an unknown task with brackets": ("build", "lower[tiny, q4f32_1, x86_64-linux-gpu]"),
    "why of an unknown task": ("why", "fetch[tinny]"),
    "why of several tasks": ("why", "*tiny*"),
    "events that cannot be written": ("build", "fetch", "--events", "no/events.ndjson"),
}


@pytest.mark.parametrize("columns", [80, 120])
def test_what_is_said_of_mistakes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], columns: int
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("LLMBUILD_CACHE", str(tmp_path / "store"))
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    Path("buildfile.toml").write_text(TINY_MANIFEST)
    Path("events.ndjson").write_text('{"v":1,"type":"plan-made","time":0,"tasks":[],"jobs":1}\n')
    text = ""
    for name, command in {**COMMANDS, **WITH_SOURCE}.items():
        if command in WITH_SOURCE.values() and not Path("checkpoint").exists():
            Path("checkpoint").mkdir()
            Path("checkpoint/config.json").write_text("{}")
            Path("checkpoint/model.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
        code = main(command)
        out, err = capsys.readouterr()
        assert code and "Traceback" not in err and "internal error" not in err
        text += f"# {name}: llmbuild {' '.join(command)}\n{out}{err}exit code {code}\n\n"
    golden.check(GOLDEN / f"mistakes-{columns}.txt", text.replace(str(tmp_path), "/project"))
