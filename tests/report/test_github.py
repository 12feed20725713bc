"""What a failed task and an error are in a GitHub Actions workflow, beside the messages for people."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from llmbuild.engine import events
from llmbuild.engine.executor import TaskFailure
from llmbuild.errors import MultiError, UsageError, Where
from llmbuild.report.github import error_commands, failure_commands
from llmbuild.report.style import Style
from llmbuild.report.terminal import View
from llmbuild.report.views import view_for

KEY = "3f" * 32


def failed(**more: str) -> events.Failed:
    return events.Failed(time=0, label="lower[m]", action=KEY, failure=TaskFailure("the tool ended", **more))


def test_each_of_several_errors_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GITHUB_WORKSPACE", raising=False)
    (tmp_path / "b.toml").touch()
    errors = MultiError([UsageError("one", where=Where("b.toml", 2, "models")), UsageError("two", fix="this")])
    assert error_commands(errors) == [
        f"::error file={tmp_path}/b.toml,line=2::b.toml:2: models: one",
        "::error::two%0Afix: this",
    ]


def test_a_failed_task_has_its_whole_log_in_a_group(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    log.write_text("".join(f"line {number}\n" for number in range(100)) + "\x1b[31mred\n")
    command, group = failure_commands(failed(log=str(log), log_tail="line 99\n", why="it said so"))
    assert command == "::error::lower[m] failed: the tool ended%0Awhy: it said so"
    lines = group.splitlines()
    assert lines[0] == "::group::log of lower[m]"
    assert lines[2:-2] == [*(f"line {number}" for number in range(100)), "\\x1b[31mred"]


def test_without_its_file_the_log_is_what_the_event_has(tmp_path: Path) -> None:
    _, group = failure_commands(failed(log=str(tmp_path / "gone"), log_tail="the end\n"))
    assert group.splitlines()[2:-2] == ["the end"]
    assert len(failure_commands(failed())) == 1


def test_a_build_prints_them_in_a_workflow_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    plain, annotated = io.StringIO(), io.StringIO()
    view_for(plain)(failed(log_tail="the end"))
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    view_for(annotated)(failed(log_tail="the end"))
    assert "::" not in plain.getvalue()
    assert annotated.getvalue().startswith(f"{plain.getvalue()}::error::lower[m] failed: the tool ended\n::group::")
    View(quiet := io.StringIO(), Style(80), quiet=True, workflow=True)(failed())
    assert "\n::error::" in quiet.getvalue()
