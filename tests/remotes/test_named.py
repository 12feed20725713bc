"""A cache is one file: a module that Python finds, chosen by its name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmbuild.cli.main import main
from llmbuild.engine import warning
from llmbuild.engine.outcome import Status
from llmbuild.engine.store import Store
from llmbuild.errors import ExitCode, UsageError
from llmbuild.remotes.named import named_remote
from tests.helpers.engine_build import build, join_task, text_of, write_task
from tests.helpers.engine_fixtures import ROOT

TASKS = (write_task("a", {"x": "1", "y/z": "2"}), join_task("b", "b", "a"))


def recipe() -> str:
    """The module of the recipe in docs/how-to-add.md."""
    section = (ROOT / "docs/how-to-add.md").read_text().split("\n## A cache\n")[1]
    return section.split("```python\n")[1].split("```")[0]


@pytest.fixture(autouse=True)
def nothing_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LLMBUILD_REMOTE", raising=False)
    monkeypatch.delenv("LLMBUILD_REMOTE_MODE", raising=False)
    monkeypatch.setattr(warning, "_said", set())


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory on the path of Python with one file, a cache."""
    directory = tmp_path / "modules"
    directory.mkdir()
    (directory / "flat_cache.py").write_text(recipe())
    (directory / "no_cache.py").write_text("x = 1\n")
    monkeypatch.syspath_prepend(directory)


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path / "other")
    yield opened
    opened.close()


@pytest.mark.parametrize("prefix", ["flat_cache:", "", "directory:"])
def test_a_second_store_runs_nothing(store: Store, other: Store, mine: None, tmp_path: Path, prefix: str) -> None:
    place = f"{prefix}{tmp_path}/shared"
    build(store, TASKS, sharing=named_remote(place))
    result, _ = build(other, TASKS, sharing=named_remote(place))
    assert result.labels(Status.CACHED) == ["a", "b"]
    assert text_of(other, result, "b") == "b|1|2"
    assert (tmp_path / "shared").is_dir()


def test_a_cache_whose_files_were_damaged(store: Store, other: Store, mine: None, tmp_path: Path) -> None:
    place = f"flat_cache:{tmp_path}/shared"
    build(store, TASKS, sharing=named_remote(place))
    for path in (tmp_path / "shared").iterdir():
        path.write_bytes(path.read_bytes()[:-1])
    result, _ = build(other, TASKS, sharing=named_remote(place))
    assert result.labels(Status.RAN) == ["a", "b"]
    assert text_of(other, result, "b") == "b|1|2"


def test_the_mode_says_what_is_done(
    store: Store, other: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMBUILD_REMOTE", f"{tmp_path}/shared")
    monkeypatch.setenv("LLMBUILD_REMOTE_MODE", "off")
    assert named_remote() is None
    monkeypatch.setenv("LLMBUILD_REMOTE_MODE", "read")
    build(store, TASKS, sharing=named_remote())
    assert not Store(tmp_path / "shared").traces.names()
    monkeypatch.setenv("LLMBUILD_REMOTE_MODE", "write")
    build(store, TASKS, sharing=named_remote(), force=["a"])
    assert len(Store(tmp_path / "shared").traces.names()) == 1
    monkeypatch.setenv("LLMBUILD_REMOTE_MODE", "reed")
    with pytest.raises(UsageError, match="there is no mode 'reed' of another cache"):
        named_remote()


def test_without_a_name_there_is_none() -> None:
    assert named_remote() is None


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("shared", "'shared' names no other cache"),
        ("s4:bucket", "there is no cache 's4'"),
        ("no.such.module:x", "there is no cache 'no.such.module'"),
        ("no_cache:x", "the module no_cache is no cache"),
    ],
)
def test_a_text_that_names_none_is_said_before_anything_runs(mine: None, text: str, what: str) -> None:
    with pytest.raises(UsageError, match=what):
        named_remote(text)


def test_what_is_shown_of_a_url_is_not_secret(mine: None) -> None:
    sharing = named_remote("flat_cache://user:password@host/team?signature=1")
    assert sharing is not None
    assert "password" not in sharing.name
    assert "signature" not in sharing.name


def test_on_the_command_line(
    tmp_path: Path, mine: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LLMBUILD_CACHE", str(tmp_path / "cache"))
    project = tmp_path / "project"
    (project / "model").mkdir(parents=True)
    (project / "model" / "config.json").write_text(json.dumps({"model_type": "llama"}))
    (project / "buildfile.toml").write_text(
        '[models.m]\nsource = "model"\n'
        'conv-template = "LM"\n[[build]]\nquantizations = ["q0f32"]\nplatforms = ["x86_64-linux-cpu"]\n'
    )
    monkeypatch.chdir(project)
    place = f"flat_cache:{tmp_path}/shared"
    assert main(["build", "--remote", "s4:bucket", "fetch"]) == ExitCode.USAGE
    monkeypatch.setenv("LLMBUILD_REMOTE", "s5:bucket")
    assert main(["build", "fetch"]) == ExitCode.USAGE
    said = capsys.readouterr().err
    assert "there is no cache 's4'" in said
    assert "there is no cache 's5'" in said
    assert main(["build", "--remote", place, "fetch"]) == ExitCode.OK
    shutil.rmtree(tmp_path / "cache")
    capsys.readouterr()
    assert main(["build", "--remote", place, "fetch"]) == ExitCode.OK
    said = capsys.readouterr().err
    assert f"taken  [1/1] fetch[m]: from {place}\n" in said
    assert "run " not in said
    assert "up to date: 1 task cached" in said
