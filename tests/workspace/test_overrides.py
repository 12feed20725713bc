"""A plan tells which override of a scheme is meant for nothing, and where it stands."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmbuild.cli.main import main

MANIFEST = """\
[project]
name = "overrides"

[models.llama]
preset = "Llama-3.2-1B"
conv-template = "llama-3"

[quantizations.mixed]
base = "q4f32_1"
overrides = [
    { match = "*.down_proj", bits = 8, layers = "0-3" },
    { match = "lm_hed", bits = 8 },
]

[[build]]
models = ["llama"]
quantizations = ["mixed"]
platforms = ["x86_64-linux-cpu"]
"""


def plan(tmp_path: Path, manifest: str, monkeypatch: pytest.MonkeyPatch) -> int:
    (tmp_path / "buildfile.toml").write_text(manifest)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LLMBUILD_CACHE", str(tmp_path / "cache"))
    return main(["plan"])


def test_a_pattern_that_matches_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plan(tmp_path, MANIFEST, monkeypatch)
    said = " ".join(capsys.readouterr().out.split())
    assert "buildfile.toml:12: quantizations.mixed.overrides[1]: 'lm_hed' matches no parameter" in said


def test_a_plan_tells_what_has_other_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plan(tmp_path, MANIFEST.replace("lm_hed", "lm_head"), monkeypatch) == 0
    out, err = capsys.readouterr()
    said = " ".join((out + err).split())
    assert "quantizations.mixed: 4 bits, but *.down_proj of layers 0-3: 8 bits; lm_head: 8 bits" in said
    assert "lower[llama, mixed, x86_64-linux-cpu]" in said
