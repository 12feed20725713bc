"""Wrong input of every kind that llmbuild reads from outside, made from seeds: tests/helpers/fuzz.py says what must hold.

20,000 cases in this process and 150 commands; `-m full` goes on from there to 500,000.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llmbuild.sources import request
from tests.helpers import engine_kinds, source_kinds
from tests.helpers.fuzz import Area, run
from tests.helpers.fuzz_edges import Answers, Commands, Hubs, Locks, Projects, Statements
from tests.helpers.fuzz_store import Archives, Installed, Records
from tests.helpers.ram import ram_directory

AREAS: dict[str, tuple[Callable[[Path], Area], int]] = {
    "records": (Records, 1000),
    "archives": (Archives, 1000),
    "installed": (Installed, 1500),
    "locks": (Locks, 8000),
    "statements": (Statements, 5000),
    "answers": (Answers, 2000),
    "hubs": (Hubs, 1500),
    "projects": (Projects, 150),
    "commands": (Commands, 150),
}
FULL = 28


@pytest.fixture
def base(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with ram_directory() as path:
        monkeypatch.setenv("LLMBUILD_TASK_MODULES", f"{engine_kinds.MODULE},{source_kinds.MODULE}")
        monkeypatch.setenv("NO_COLOR", "1")
        monkeypatch.setenv("HOME", str(path / "home"))
        monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
        monkeypatch.setattr(request, "POLICY", request.POLICY)
        monkeypatch.chdir(path)
        yield path


def test_the_cases_are_enough() -> None:
    assert sum(count for name, (_, count) in AREAS.items() if name != "commands") >= 20_000
    assert sum(count for _, count in AREAS.values()) * FULL >= 500_000


@pytest.mark.slow
@pytest.mark.parametrize("name", AREAS)
def test_wrong_input_ends_as_documented(name: str, base: Path) -> None:
    make, count = AREAS[name]
    run(name, make(base), 0, count)


@pytest.mark.full
@pytest.mark.parametrize("part", range(1, FULL))
@pytest.mark.parametrize("name", AREAS)
def test_much_more_wrong_input_ends_as_documented(name: str, part: int, base: Path) -> None:
    make, count = AREAS[name]
    run(name, make(base), part * count, count)
