"""A library for another CPU, cross-compiled here and run there: the real model answers under QEMU's emulation."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers import aarch64
from tests.helpers.cli import make_project

ROOT = Path(__file__).parent.parent.parent
TARGET = "aarch64-linux-cpu"

pytestmark = [pytest.mark.slow, pytest.mark.skipif(aarch64.missing() is not None, reason=str(aarch64.missing()))]


def test_the_model_answers_on_aarch64(tmp_path: Path) -> None:
    manifest = (ROOT / "buildfile.example.toml").read_text().replace("x86_64-linux-cpu", TARGET)
    project = make_project(tmp_path, manifest)
    assert project.build() == {"fetch": 1, "quantize": 1, "config": 1, "lower": 1, "link": 1}

    files = ["--library", f"dist/libs/smollm2-q4f32_1-{TARGET}.so", "--weights", "dist/smollm2-q4f32_1-MLC"]
    question = ["--prompt", "What is the capital of France?", "--temperature", "0", "--max-tokens", "12"]
    answer = aarch64.machine().llmbuild("chat", *files, *question, cwd=project.root)
    assert answer.code == 0, answer.text
    # The same words as the library for x86-64 gives (tests/e2e/test_quick_start.py).
    assert answer.out.strip() == "The capital of France is Paris."
