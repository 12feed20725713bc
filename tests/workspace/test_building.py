"""Building through the workspace: what the command line's tests do not see."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from llmbuild.engine.task import Task
from llmbuild.workspace import building


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

    monkeypatch.setattr("llmbuild.workspace.compare.check", check)
    for names in ((), ("*far*",), ("config",)):
        snapshot = SimpleNamespace(tasks=tasks, remotes=(remote,), store=None, names=names)
        assert building._check(snapshot, None, result, 1, SimpleNamespace(emit=None), notes.append) == {}
    assert checked == [labels[1:], [labels[0], labels[2]], labels[2:]]
    assert notes == ["not fetched again: fetch[far]; `build --check fetch` does that"]
