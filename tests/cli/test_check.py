"""`build --check`: tasks that do not give the same bytes again are found, and how."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace

import pytest

from llmbuild.cli import build as build_command
from llmbuild.engine import events
from llmbuild.engine.store import Store
from llmbuild.engine.task import Task
from llmbuild.errors import ExitCode
from llmbuild.report.style import Style
from llmbuild.report.terminal import View
from llmbuild.workspace.compare import check
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
    code = check(store, list(result.outcomes.items()), 2, emit)
    assert len(found) == len(tasks)
    assert {path: path.read_bytes() for path in (store.root / "traces").rglob("*.json")} == traces
    assert list((store.root / "logs").glob("*")) == [] or "fail" in ways
    store.close()
    return code, stream.getvalue()


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


def test_without_names_all_but_downloads_are_checked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = ["fetch[far]", "fetch[near]", "config[far, q4f32_1]"]
    tasks = tuple(Task(label.split("[")[0], label, 1, {}, {}, {}) for label in labels)
    remote = SimpleNamespace(fetch=SimpleNamespace(label="fetch[far]"))
    session = SimpleNamespace(tasks=tasks, remotes=(remote,), store=None)
    result = SimpleNamespace(outcomes=dict.fromkeys(labels))
    checked: list[list[str]] = []

    def check(_store: object, outcomes: list[tuple[str, object]], _jobs: int, _emit: object) -> ExitCode:
        checked.append([label for label, _ in outcomes])
        return ExitCode.OK

    monkeypatch.setattr("llmbuild.workspace.compare.check", check)
    for names in ([], ["*far*"], ["config"]):
        args = SimpleNamespace(tasks=names)
        assert build_command._check(args, session, result, 1, SimpleNamespace(emit=None)) == ExitCode.OK
    assert checked == [labels[1:], [labels[0], labels[2]], labels[2:]]
    said = "note: not fetched again: fetch[far]; `build --check fetch` does that\n"
    assert capsys.readouterr().err == said
