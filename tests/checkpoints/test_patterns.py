"""Regular expressions out of files keep Python's meaning and end in time."""

from __future__ import annotations

import re
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmbuild.checkpoints import patterns
from llmbuild.checkpoints.patterns import PatternError, match_ends
from llmbuild.errors import ToolchainError

MODULES = [f"model.layers.{layer}.{part}" for layer in range(12) for part in ("self_attn.q_proj", "mlp.up_proj", "x_1")]
SAMPLES = ["q_proj", "layers.1.self_attn.q_proj", r"layers\.1\.mlp\.up_proj", "1", "", "model.layers.3.x_1", "x_."]
NEED_A_PROCESS = ["(q|k)_proj", "layers.[0-5].*up_proj", r"x_\d", "^model.*$", ".*", "(?i)X_1"]


def by_python(given: list[str], names: list[str]) -> list[int | None]:
    """What peft does, by Python's re in this process."""
    found: list[int | None] = []
    for name in names:
        hits = [index for index, one in enumerate(given) if re.fullmatch(rf"(?:.*\.)?(?:{one})", name)]
        found.append(hits[0] if hits else None)
    return found


@pytest.mark.parametrize("given", [SAMPLES, [one for one in NEED_A_PROCESS if "(?i)" not in one]])
def test_the_first_that_matches_counts(given: list[str]) -> None:
    assert match_ends({"rank_pattern": given}, MODULES) == {"rank_pattern": by_python(given, MODULES)}


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from(SAMPLES), max_size=4))
def test_plain_expressions_need_no_process(given: list[str]) -> None:
    assert match_ends({"a": given, "b": []}, MODULES) == {"a": by_python(given, MODULES), "b": [None] * len(MODULES)}


def test_they_are_ended_when_they_compute_for_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Expressions without any backtracking, on so many names that a millisecond is not enough."""
    monkeypatch.setattr(patterns, "SECONDS", 0.001)
    names = [f"{name}.{number}" for number in range(3000) for name in MODULES]
    with pytest.raises(PatternError, match=r"more than 0\.001 seconds") as refused:
        match_ends({"rank_pattern": ["[a]"], "alpha_pattern": ["[b]", "[c]"]}, names)
    assert refused.value.key in ("rank_pattern", "alpha_pattern")


def test_they_are_ended_when_they_wait_for_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patterns, "WALL_SECONDS", 0.2)
    monkeypatch.setattr(patterns, "_CHILD", "import time; print('{\"found\": [null]}', flush=True); time.sleep(60)")
    with pytest.raises(PatternError, match="more than 2 seconds") as refused:
        match_ends({"rank_pattern": ["[a]"], "alpha_pattern": ["[a]"]}, ["a.b"])
    assert refused.value.key == "alpha_pattern"


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("(", "not a regular expression"),
        ("a{99999999999999999999}", "not a regular expression"),
        ("(?P<1>x)", "not a regular expression"),
        ("(" * 900 + ")" * 900, "not a regular expression"),
        ("x" * 10_001, "10000 are the most"),
    ],
)
def test_what_is_no_expression(pattern: str, why: str) -> None:
    with pytest.raises(PatternError, match=why) as refused:
        match_ends({"rank_pattern": ["q"], "alpha_pattern": [pattern]}, ["a.b"])
    assert refused.value.key == "alpha_pattern"


def test_a_process_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patterns, "_CHILD", "import sys; sys.exit('no memory')")
    with pytest.raises(PatternError, match="no memory"):
        match_ends({"rank_pattern": ["[a]"]}, ["a.b"])


def test_a_process_that_cannot_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "run", refuse)
    with pytest.raises(ToolchainError, match="no process can be started"):
        match_ends({"rank_pattern": ["[a]"]}, ["a.b"])
