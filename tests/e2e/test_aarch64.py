"""Another CPU, emulated by QEMU: llmbuild plans on it, and the real model answers there by a library that was made here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.helpers import aarch64
from tests.helpers.checkpoints import cached_checkpoint
from tests.helpers.cli import TINY_MANIFEST, make_project

ROOT = Path(__file__).parent.parent.parent
TARGET = "aarch64-linux-cpu"

pytestmark = [pytest.mark.slow, pytest.mark.skipif(aarch64.missing() is not None, reason=str(aarch64.missing()))]


@pytest.mark.parametrize(
    "cpu", ["neoverse-n1", *(pytest.param(cpu, marks=pytest.mark.full) for cpu in ("cortex-a53", "max"))]
)
def test_the_model_answers_on_aarch64(cpu: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU that has dot products, which the library calls then, on one that has ARMv8.0 alone, and on one that has all."""
    monkeypatch.setenv("QEMU_CPU", cpu)
    manifest = (ROOT / "buildfile.example.toml").read_text().replace("x86_64-linux-cpu", TARGET)
    project = make_project(tmp_path, manifest)
    assert project.build() == {"fetch": 1, "inspect": 1, "quantize": 1, "config": 1, "lower": 1, "link": 1}

    files = ["--library", f"dist/libs/smollm2-q4f32_1-{TARGET}.so", "--weights", "dist/smollm2-q4f32_1-MLC"]
    question = ["--prompt", "What is the capital of France?", "--temperature", "0", "--max-tokens", "12"]
    answer = aarch64.machine().llmbuild("chat", *files, *question, cwd=project.root)
    assert answer.code == 0, answer.text
    # The same words as the library for x86-64 gives (tests/e2e/test_quick_start.py).
    assert answer.out.strip() == "The capital of France is Paris."


def test_a_plan_on_aarch64(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same labels as here, and the linkers and the code generators of that machine's packages."""
    platforms = f'["{TARGET}", "aarch64-macos-metal", "x86_64-linux-cuda"]'
    manifest = TINY_MANIFEST.replace('["x86_64-linux-cpu"]', platforms)
    project = make_project(tmp_path, manifest, cached_checkpoint("llama"))
    here = json.loads(project.run("plan", "--json").out)
    monkeypatch.setenv("LLMBUILD_CACHE", str(tmp_path / "store of aarch64"))
    planned = aarch64.machine().llmbuild("plan", "--json", cwd=project.root)
    assert planned.code == 0, planned.text
    there = json.loads(planned.out)
    assert [task["task"] for task in there["tasks"]] == [task["task"] for task in here["tasks"]]
    assert there["counts"] == here["counts"]
