"""What the command line names is never overwritten unless it is of the same kind, and an empty path is no path."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from llmbuild.cli.main import main
from llmbuild.engine.store import Store
from tests.helpers import engine_kinds
from tests.helpers.cli import TINY_MANIFEST
from tests.helpers.engine_build import build, write_task

EVENT = json.dumps({"v": 1, "type": "plan-made", "time": 1.0, "tasks": [], "jobs": 1}, separators=(",", ":"))
MINE = "<!DOCTYPE html>\n<title>mine</title>"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "project"
    place.mkdir()
    (place / "buildfile.toml").write_text(TINY_MANIFEST.replace('source = "checkpoint"', 'preset = "llama2_7b"'))
    monkeypatch.chdir(place)
    monkeypatch.setenv("LLMBUILD_CACHE", str(tmp_path / "store"))
    monkeypatch.setenv("COLUMNS", "250")
    monkeypatch.setenv("LLMBUILD_TASK_MODULES", engine_kinds.MODULE)
    return place


@pytest.mark.parametrize("name", ["mine.txt", "buildfile.toml", "llmbuild.lock", "link"])
def test_a_file_without_events_is_not_overwritten_by_events(
    here: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    for file in ("mine.txt", "llmbuild.lock"):
        (here / file).write_text("version = 1\n")
    (here / "link").symlink_to("buildfile.toml")
    before = (here / name).read_text()
    assert main(["build", "nothing*", "--events", name]) == 2
    capsys.readouterr()
    assert main(["build", "config", "--events", name]) == 2
    assert "the file is not a file of events, and would be overwritten" in capsys.readouterr().err
    assert (here / name).read_text() == before


def test_a_name_that_no_file_can_have_is_one_message(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", "config", "--events", "x" * 300]) == 6
    assert "cannot look at a file to replace" in capsys.readouterr().err


def test_events_replace_events_and_empty_files(here: Path) -> None:
    for content in ("", EVENT + "\n"):
        (here / "events").write_text(content)
        assert main(["build", "config", "--events", "events"]) == 0
        assert EVENT not in (here / "events").read_text()
        assert (here / "events").read_text().startswith('{"v":1,"type":"plan-made"')


def test_a_page_replaces_pages_only(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "events").write_text(EVENT + "\n")
    for name in ("mine.html", "events", "buildfile.toml"):
        (here / "mine.html").write_text(MINE)
        before = (here / name).read_text()
        assert main(["report", "--events", "events", "--html", name]) == 2
        assert "is not a build report" in capsys.readouterr().err
        assert (here / name).read_text() == before
    for _ in range(2):
        assert main(["report", "--events", "events", "--html", "page.html"]) == 0


def test_an_archive_replaces_archives_only(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache", "export", "--all", "buildfile.toml"]) == 2
    assert "is not an archive of `llmbuild cache export`" in capsys.readouterr().err
    assert "[project]" in (here / "buildfile.toml").read_text()
    for _ in range(2):
        assert main(["cache", "export", "--all", "cache.tar"]) == 0


def test_a_pipe_or_a_device_is_not_replaced(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(here / "pipe")
    for line in (["cache", "export", "--all", "pipe"], ["init", "preset:Llama-2-7B", "--force", "-o", "pipe"]):
        assert main(line) == 2
        assert "this is no file, and would be replaced by one" in capsys.readouterr().err
        assert (here / "pipe").is_fifo()


def test_exec_overwrites_nothing(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store(here.parent / "store")
    result, _ = build(store, [write_task("a", {"x": "1", "sub/y": "2"})])
    action = result.outcomes["a"].action
    store.close()
    assert action is not None
    (here / "x").write_text("mine")
    assert main(["exec", "--trust", action, "-o", "."]) == 2
    said = capsys.readouterr()
    assert "a file would be overwritten" in said.err
    assert "done" not in said.err
    assert ((here / "x").read_text(), (here / "sub").exists()) == ("mine", False)
    # Where the trace is lost, it is seen after the run.
    store.traces.path(action).unlink()
    assert main(["exec", "--trust", action, "-o", "."]) == 2
    assert (here / "x").read_text() == "mine"
    (here / "other/sub").mkdir(parents=True)
    (here / "other/sub/y").symlink_to(here / "x")
    (here / "other/x").write_text("mine")
    assert main(["exec", "--trust", action, "-o", "other"]) == 2
    assert "2 files would be overwritten" in capsys.readouterr().err
    for _ in range(2):
        assert main(["exec", "--trust", action, "-o", "out"]) == 0
    assert (here / "out/sub/y").read_text() == "2"


@pytest.mark.parametrize(
    "line",
    [
        "plan --cache-dir EMPTY",
        "build --cache-dir EMPTY",
        "build --file EMPTY",
        "build --events EMPTY",
        "lock --cache-dir=",
        "why x -f EMPTY",
        "cache stats --cache-dir EMPTY",
        "cache export EMPTY --all",
        "cache import EMPTY",
        "exec 0123456789 -o EMPTY",
        "init llama2_7b --output EMPTY",
        "report --html EMPTY",
        "report --events EMPTY",
        "targets --file EMPTY",
        "verify --library EMPTY",
        "verify --weights EMPTY",
    ],
)
def test_an_empty_path_is_an_error(here: Path, capsys: pytest.CaptureFixture[str], line: str) -> None:
    before = sorted(here.iterdir())
    assert main(["" if word == "EMPTY" else word for word in line.split()]) == 2
    assert "the path is empty" in capsys.readouterr().err
    assert sorted(here.iterdir()) == before


def test_a_state_directory_that_is_a_link_is_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here.parent / "elsewhere").mkdir()
    (here / ".llmbuild").symlink_to("../elsewhere")
    for line in ("plan", "build config", "lock", "report", "build config -f buildfile.toml", "plan -f ."):
        assert main(line.split()) == 2, line
        assert "llmbuild's own files is a symbolic link" in capsys.readouterr().err
    assert list((here.parent / "elsewhere").iterdir()) == []
    (here / ".llmbuild").unlink()
    assert main(["build", "config"]) == 0
