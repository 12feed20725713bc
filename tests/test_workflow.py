"""Workflow commands of GitHub Actions, as its documents and its toolkit write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmbuild.workflow import annotation, group, in_workflow


def test_only_a_step_of_a_workflow_prints_them(monkeypatch: pytest.MonkeyPatch) -> None:
    for value, expected in (("true", True), ("false", False), ("", False), ("1", False)):
        monkeypatch.setenv("GITHUB_ACTIONS", value)
        assert in_workflow() is expected
    monkeypatch.delenv("GITHUB_ACTIONS")
    assert not in_workflow()


def test_a_message_is_one_line_with_its_parts() -> None:
    said = annotation("error", "100% wrong\r\nhere", where="a place", why="x", fix="y")
    assert said == "::error::a place: 100%25 wrong%0D%0Ahere%0Awhy: x%0Afix: y"
    assert annotation("warning", "%0A: , ::") == "::warning::%250A: , ::"


def test_a_file_that_is_here_is_named_with_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = tmp_path / "checkout" / "models, 100%:all"
    project.mkdir(parents=True)
    (project / "buildfile.toml").touch()
    monkeypatch.chdir(project)
    monkeypatch.setenv("GITHUB_WORKSPACE", str(tmp_path / "checkout"))
    known = "file=models%2C 100%25%3Aall/buildfile.toml"
    where = "buildfile.toml:12: models.smollm2.source"
    assert annotation("error", "no", where=where) == f"::error {known},line=12::{where}: no"
    assert annotation("error", "no", where="buildfile.toml") == f"::error {known}::buildfile.toml: no"
    assert (
        annotation("error", "no", where=where, before="x failed: ") == f"::error {known},line=12::x failed: {where}: no"
    )
    monkeypatch.setenv("GITHUB_WORKSPACE", str(tmp_path / "elsewhere"))
    whole = str(project / "buildfile.toml").replace("%", "%25").replace(":", "%3A").replace(",", "%2C")
    assert annotation("error", "no", where="buildfile.toml:3") == f"::error file={whole},line=3::buildfile.toml:3: no"


@pytest.mark.parametrize(
    "where", ["missing.toml:3: x", "https://host:443/x", "127.0.0.1:9", "platform web", "x" * 5000, "\0"]
)
def test_what_is_no_file_here_is_not_named_as_one(where: str) -> None:
    assert annotation("error", "no", where=where) == f"::error::{where}: no"


def test_lines_of_a_group_are_no_commands() -> None:
    first, second = (group("log of 100%", ["::add-mask::a", "##[group]x"]).splitlines() for _ in range(2))
    assert (first[0], first[-1]) == ("::group::log of 100%25", "::endgroup::")
    token = first[1].removeprefix("::stop-commands::")
    assert len(token) == 32 and first[2:5] == ["::add-mask::a", "##[group]x", f"::{token}::"]
    # Nobody who writes to a log can know the word that ends it.
    assert second[1] != first[1]
