"""`build --check`: tasks that do not give the same bytes again are found, and how."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from llmbuild.engine import events
from llmbuild.engine.store import Store
from llmbuild.engine.task import Task
from llmbuild.errors import ExitCode
from llmbuild.executors.local import LocalExecutor
from llmbuild.report.style import Style
from llmbuild.report.terminal import View
from llmbuild.workspace.check import check
from llmbuild.workspace.outcome import BuildError, BuildOutcome
from tests.helpers import engine_kinds
from tests.helpers.checkpoints import cached_checkpoint
from tests.helpers.cli import make_project, read_events
from tests.helpers.engine_build import build, write_task

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(autouse=True)
def _kinds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LLMBUILD_TASK_MODULES", engine_kinds.MODULE)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv(engine_kinds.RUNS, str(tmp_path / "runs"))


def checked(tmp_path: Path, *ways: str) -> tuple[ExitCode, str]:
    """Build tasks that change in these ways when they run again, check them, and return what a terminal shows."""
    store = Store(tmp_path / "store")
    tasks = [Task("vary", f"vary[{way}]", 1, {"way": way}, {}, {}, hints={"memory": str(tmp_path)}) for way in ways]
    tasks.append(write_task("steady", {"x": "1"}))
    result, _ = build(store, tasks)
    assert result.ok
    stream = io.StringIO()
    found: list[events.Event] = []

    def emit(event: events.Event) -> None:
        event.to_json()
        found.append(event)
        View(stream, Style(color=False, width=80))(event)

    traces = {path: path.read_bytes() for path in (store.root / "traces").rglob("*.json")}
    outcome = BuildOutcome(
        result, tmp_path, (), check(store, LocalExecutor(store), list(result.outcomes.items()), 2, emit)
    )
    assert len(found) == len(tasks)
    assert {path: path.read_bytes() for path in (store.root / "traces").rglob("*.json")} == traces
    assert list((store.root / "logs").glob("*")) == [] or "fail" in ways
    store.close()
    return BuildError(outcome).exit_code if outcome.errors else ExitCode.OK, stream.getvalue()


def test_the_same_bytes(tmp_path: Path) -> None:
    code, text = checked(tmp_path)
    assert code == ExitCode.OK
    assert "same   steady: 1 file, byte for byte (" in text


@pytest.mark.parametrize(
    ("way", "line"),
    [
        ("byte", "big: differs from byte 2345678 on (3000000 bytes)"),
        ("shorter", "big: differs from byte 1000 on (3000000 and 1000 bytes)"),
        ("mode", "big: is executable only once"),
        ("extra", "more: was made in addition"),
        ("missing", "gone: was not made again"),
    ],
)
def test_what_differs_is_named(tmp_path: Path, way: str, line: str) -> None:
    code, text = checked(tmp_path, way)
    assert code == ExitCode.VERIFY
    assert f"differs vary[{way}]: the same inputs gave other bytes\n  {line}\n  to run it again: llmbuild exec " in text
    assert "same   steady" in text


def test_a_task_that_fails_this_time(tmp_path: Path) -> None:
    code, text = checked(tmp_path, "fail")
    assert code == ExitCode.INPUT
    assert "vary[fail] failed: no more" in text
    code, text = checked(tmp_path / "both", "fail", "byte") if (tmp_path / "both").mkdir() is None else (code, text)
    assert code == ExitCode.VERIFY


def test_the_command_checks_what_is_named(tmp_path: Path) -> None:
    project = make_project(tmp_path, checkpoint=cached_checkpoint("llama"))
    result = project.run("build", "--check", "quantize", "config", "--events", "events")
    assert result.code == 0, result.text
    checks = [event for event in read_events(project.root / "events") if event["type"] == "checked"]
    assert sorted(event["label"].split("[")[0] for event in checks) == ["config", "quantize"]
    assert all(event["differences"] == [] for event in checks)
    assert result.text.count("byte for byte") == 2
