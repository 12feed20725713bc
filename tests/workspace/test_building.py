"""Building through the workspace: what the command line's tests do not see."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

import llmbuild
from llmbuild.engine.task import Task
from llmbuild.workspace import building
from llmbuild.workspace.outcome import BuildError
from tests.helpers.checkpoints import cached_checkpoint
from tests.helpers.cli import TINY_MANIFEST, make_project


def test_without_names_all_but_downloads_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = ["fetch[far]", "fetch[near]", "config[far, q4f32_1]"]
    tasks = tuple(Task(label.split("[")[0], label, 1, {}, {}, {}) for label in labels)
    remote = SimpleNamespace(fetch=SimpleNamespace(label="fetch[far]"))
    result = SimpleNamespace(outcomes=dict.fromkeys(labels))
    checked: list[list[str]] = []
    notes: list[str] = []

    def check(
        _store: object, _executor: object, outcomes: list[tuple[str, object]], _jobs: int, _emit: object
    ) -> dict[str, object]:
        checked.append([label for label, _ in outcomes])
        return {}

    monkeypatch.setattr("llmbuild.workspace.check.check", check)
    for names in ((), ("*far*",), ("config",)):
        snapshot = SimpleNamespace(tasks=tasks, remotes=(remote,), store=None, names=names)
        assert building._check(snapshot, None, result, 1, SimpleNamespace(emit=None), notes.append) == {}
    assert checked == [labels[1:], [labels[0], labels[2]], labels[2:]]
    assert notes == ["not fetched again: fetch[far]; `build --check fetch` does that"]


def test_a_library_whose_linker_fails_leaves_no_record(tmp_path: Path) -> None:
    """Nor the statement of one; what an earlier build installed stays as it is, record and library alike."""
    target = tmp_path / "project/targets/mine.toml"
    project = make_project(tmp_path, TINY_MANIFEST.replace("x86_64-linux-cpu", "mine"), cached_checkpoint("llama"))
    target.parent.mkdir()

    def build(link: str, *tasks: str) -> tuple[bool, dict[str, bytes]]:
        target.write_text(f'[target]\nextends = "x86_64-linux-opencl"\n[link]\n{link}')
        with llmbuild.open(project.root, cache=project.store) as workspace:
            try:
                ok = workspace.build(*tasks, keep_going=True, provenance=True).ok
            except BuildError as error:
                assert [one.what.split("[")[0] for one in error.outcome.errors] == ["link"]
                ok = False
            return ok, {name: data for name, data in project.snapshot().items() if "libs/" in name or "mine" in name}

    assert build('flags = ["-lthere-is-none"]') == (False, {})
    assert build("", "lower") == (True, {})
    ok, files = build("")
    assert ok and set(files) == {
        "libs/tiny-q4f32_1-mine.so",
        "libs/tiny-q4f32_1-mine.so.json",
        "provenance/tiny-q4f32_1-mine.so.intoto.json",
        "provenance/tiny-q4f32_1-mine.so.json.intoto.json",
    }
    assert build('flags = ["-lthere-is-none"]') == (False, files)
