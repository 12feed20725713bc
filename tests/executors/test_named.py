"""An executor is one file: a module that Python finds, chosen by its name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llmbuild.cli.main import main
from llmbuild.engine.outcome import Status
from llmbuild.engine.store import Store
from llmbuild.errors import ExitCode, UsageError
from llmbuild.executors.inline import InlineExecutor
from llmbuild.executors.local import LocalExecutor
from llmbuild.executors.named import EXECUTORS, NamedExecutor
from tests.helpers.engine_build import build, join_task, text_of, write_task
from tests.helpers.engine_fixtures import ROOT


def recipe() -> str:
    """The module of the recipe in docs/how-to-add.md."""
    section = (ROOT / "docs/how-to-add.md").read_text().split("\n## An executor\n")[1]
    return section.split("```python\n")[1].split("```")[0]


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory on the path of Python with one file, an executor."""
    directory = tmp_path / "modules"
    directory.mkdir()
    (directory / "my_cluster.py").write_text(recipe())
    (directory / "no_executor.py").write_text("x = 1\n")
    (directory / "broken.py").write_text("x = 1 / 0\n")
    monkeypatch.syspath_prepend(directory)
    return directory


def test_an_executor_is_one_file(store: Store, mine: Path) -> None:
    tasks = [write_task("a", {"x": "1"}), join_task("b", "b", "a"), write_task("bad", {}, fail="no")]
    executor = NamedExecutor(store, "my_cluster")
    result, _ = build(store, tasks, executor=executor, keep_going=True)
    assert text_of(store, result, "b") == "b|1"
    assert result.outcomes["bad"].status is Status.FAILED
    assert sorted((mine / "ran").read_text().split()) == ["a", "b", "bad"]
    outcome = result.outcomes["b"]
    assert outcome.action is not None
    assert outcome.trace is not None
    assert executor.rerun(outcome.action) == outcome.trace.output
    assert build(store, tasks[:2], executor=NamedExecutor(store, "my_cluster"))[0].labels(Status.CACHED) == ["a", "b"]


def test_the_option_goes_before_the_environment_and_that_before_the_settings(
    store: Store, mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert isinstance(NamedExecutor(store)._get(), LocalExecutor)
    (tmp_path / "llmbuild").mkdir()
    (tmp_path / "llmbuild" / "config.toml").write_text('executor = "inline"\n')
    assert isinstance(NamedExecutor(store)._get(), InlineExecutor)
    monkeypatch.setenv("LLMBUILD_EXECUTOR", "my_cluster")
    assert type(NamedExecutor(store)._get()).__name__ == "Mine"
    assert isinstance(NamedExecutor(store, "local")._get(), LocalExecutor)


@pytest.mark.parametrize("name", EXECUTORS)
def test_all_of_llmbuilds_own_run_again_what_they_ran(store: Store, name: str) -> None:
    executor = NamedExecutor(store, name)
    result, _ = build(store, [write_task("a", {"x": "1"})], executor=executor)
    outcome = result.outcomes["a"]
    assert outcome.action is not None
    assert outcome.trace is not None
    assert executor.rerun(outcome.action) == outcome.trace.output


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("lokal", "there is no executor 'lokal'"),
        ("no.such.module", "there is no executor 'no.such.module'"),
        ("..", r"there is no executor '\.\.'"),
        ("broken", "there is no executor 'broken'"),
        ("no_executor", "the module no_executor is no executor"),
    ],
)
def test_a_name_that_is_no_executors_is_said_before_anything_runs(
    store: Store, mine: Path, name: str, what: str
) -> None:
    with pytest.raises(UsageError, match=what):
        NamedExecutor(store, name)


def test_a_name_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LLMBUILD_CACHE", str(tmp_path / "cache"))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps({"model_type": "llama"}))
    (tmp_path / "buildfile.toml").write_text(
        '[models.m]\nsource = "model"\n'
        'conv-template = "LM"\n[[build]]\nquantizations = ["q0f32"]\nplatforms = ["x86_64-linux-cpu"]\n'
    )
    monkeypatch.chdir(tmp_path)
    assert main(["build", "--executor", "lokal", "fetch"]) == ExitCode.USAGE
    assert "did you mean 'local'?" in capsys.readouterr().err
