"""What the machine says of its memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmbuild.engine import memory
from llmbuild.engine.memory import available, budget, oom_kills
from llmbuild.errors import UsageError


def test_a_control_group_can_leave_less_than_the_machine_has(tmp_path: Path) -> None:
    assert available(tmp_path) is None
    assert oom_kills(tmp_path) is None
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "meminfo").write_text("MemTotal:  9000 kB\nMemAvailable:   4000 kB\n")
    (tmp_path / "proc" / "vmstat").write_text("pgfault 7\noom_kill 3\n")
    assert available(tmp_path) == 4000 * 1024
    assert oom_kills(tmp_path) == 3
    group = tmp_path / "sys" / "fs" / "cgroup"
    group.mkdir(parents=True)
    (group / "memory.max").write_text("max\n")
    (group / "memory.current").write_text("100\n")
    assert available(tmp_path) == 4000 * 1024
    (group / "memory.max").write_text("1000\n")
    assert available(tmp_path) == 900
    (group / "memory.current").write_text("2000\n")
    assert available(tmp_path) == 0


def test_the_budget_is_what_is_asked_for_or_a_share_of_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available", lambda: 1000)
    monkeypatch.setenv("LLMBUILD_MEMORY", "2k")
    with pytest.raises(UsageError, match="is not a size"):
        budget()
    monkeypatch.setenv("LLMBUILD_MEMORY", "2kB")
    assert (budget("3kB"), budget()) == (3000, 2000)
    monkeypatch.delenv("LLMBUILD_MEMORY")
    assert budget() == 800
    monkeypatch.setattr(memory, "available", lambda: None)
    assert budget() is None


def test_this_machine_has_memory() -> None:
    found = available()
    assert found is None or found > 1 << 20
