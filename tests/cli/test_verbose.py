"""`build -v`: every task's own lines, with what it printed and the command lines of its tools."""

from __future__ import annotations

import dataclasses
import io
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from llmbuild.engine import events
from llmbuild.errors import ToolchainError
from llmbuild.programs.run import Tool, run_tool
from llmbuild.report.style import Style
from llmbuild.report.terminal import View
from tests.helpers.build_events import BUILD, FAILED, KEY, LOWER, WEB_LOWER
from tests.helpers.checkpoints import cached_checkpoint
from tests.helpers.cli import TINY_MANIFEST, make_project


def shown(build: Sequence[events.Event], logs: dict[str, str]) -> list[str]:
    stream = io.StringIO()
    view = View(stream, Style(80), log=lambda action: logs.get(action, ""))
    for event in build:
        named = isinstance(event, events.Finished | events.Failed) and event.label in logs
        view(dataclasses.replace(event, action=event.label) if named else event)  # type: ignore[call-arg,attr-defined]
    return stream.getvalue().splitlines()


def test_the_log_follows_the_end_and_cached_tasks_are_named() -> None:
    lines = shown(BUILD, {LOWER: "$ cc -shared lib0.o\n\x1b[2Jwarning\n"})
    assert lines[:2] == ["cached [1/7] fetch[smollm2]", "cached [2/7] quantize[smollm2, q4f32_1]"]
    at = next(number for number, line in enumerate(lines) if line.startswith(f"done   [4/7] {LOWER}"))
    assert lines[at + 1] == "  | $ cc -shared lib0.o"
    assert lines[at + 2].endswith("warning")
    assert "\x1b" not in lines[at + 2], "a tool does not control the terminal"
    assert lines[-3].startswith("cached [7/7] link[")


def test_a_failure_has_its_whole_log() -> None:
    log = "\n".join(f"line {number}" for number in range(40))
    lines = shown(FAILED, {LOWER: log})
    assert [line for line in lines if line.startswith("  | ")] == [f"  | line {number}" for number in range(40)]
    assert "  its log:" in lines
    assert "  the end of its log:" in shown(FAILED, {WEB_LOWER: ""})


def test_nothing_is_folded() -> None:
    from llmbuild.plan.reasons import NeverBuilt
    from llmbuild.report.events import Explained

    labels = [f"lower[m, q4f32_1, p{number}]" for number in range(5)]
    begun = [Explained(time=0, label=label, reasons=(NeverBuilt(),)) for label in labels]
    starts = [events.Started(time=0, label=label, action=KEY) for label in labels]
    assert shown([*begun, *starts], {}) == [f"run    {label}: never built" for label in labels]


def test_a_command_line_is_in_the_log_before_the_tool_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    python = Tool((sys.executable,), "python")
    run_tool(python, ["-c", "open('made file', 'w')"], tmp_path, makes="made file")
    assert capsys.readouterr().err == f"$ {sys.executable} -c 'open('\"'\"'made file'\"'\"', '\"'\"'w'\"'\"')'\n"
    with pytest.raises(ToolchainError):
        run_tool(python, ["-c", "raise SystemExit(3)"], tmp_path, makes="x")
    assert capsys.readouterr().err.startswith("$ ")


def test_a_real_build(tmp_path: Path) -> None:
    project = make_project(tmp_path, TINY_MANIFEST, cached_checkpoint("llama-gqa"))
    done = project.run("build", "-v", "config")
    assert done.code == 0
    again = project.run("build", "--verbose", "config")
    assert "cached [3/3] config[tiny, q4f32_1]" in again.text
    assert project.run("build", "-v", "--quiet").code == 2
