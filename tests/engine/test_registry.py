"""Task kinds are found by name."""

from __future__ import annotations

import pytest

from llmbuild.engine.registry import load_kind
from llmbuild.errors import UsageError
from tests.helpers import engine_kinds


def test_further_kinds_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMBUILD_TASK_MODULES", engine_kinds.MODULE)
    assert load_kind("write") is engine_kinds.KINDS[0]
    monkeypatch.delenv("LLMBUILD_TASK_MODULES")
    with pytest.raises(UsageError, match="no task kind 'quantise'"):
        load_kind("quantise")


def test_a_module_that_cannot_be_imported_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMBUILD_TASK_MODULES", "no.such.module")
    with pytest.raises(UsageError, match="cannot import a module of task kinds"):
        load_kind("x")
