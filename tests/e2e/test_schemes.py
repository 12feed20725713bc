"""Every scheme, the native target, presets and `init`: each builds, and what can run is run by `llmbuild verify`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llmbuild.models.config_json import vocabulary_key
from llmbuild.quantization.scheme import SCHEMES
from tests.helpers.chat_templates import CHATML, Checkpoint
from tests.helpers.checkpoints import cached_checkpoint
from tests.helpers.cli import TINY_MANIFEST, ProjectDir, make_project
from tests.helpers.schemes import QUANTIZING
from tests.helpers.variants import in_ci, variants, write_checkpoint


def verified(project: ProjectDir, *arguments: str) -> dict[str, dict[str, float]]:
    """The records of `llmbuild verify --json`, by library name."""
    result = project.run("verify", "--json", *arguments)
    assert result.code == 0, result.text
    records = [json.loads(line) for line in result.out.splitlines()]
    return {Path(record["library"]).name: record for record in records}


@pytest.mark.slow
def test_every_scheme_that_quantizes_builds_and_runs(tmp_path: Path) -> None:
    names = ", ".join(f'"{name}"' for name in QUANTIZING)
    manifest = TINY_MANIFEST.replace('["q4f32_1"]', f"[{names}]")
    from llmbuild.runtime.library import load_library

    project = make_project(tmp_path, manifest, cached_checkpoint("llama-gqa"))
    ran = project.build()
    assert ran == {
        "fetch": 1,
        "inspect": 1,
        "quantize": len(QUANTIZING),
        "config": len(QUANTIZING),
        "lower": len(QUANTIZING),
        "link": len(QUANTIZING),
    }
    records = verified(project)
    assert sorted(records) == sorted(f"tiny-{name}-x86_64-linux-cpu.so" for name in QUANTIZING)
    assert all(record["decode_steps"] == 5 for record in records.values())
    libraries = {name: load_library(project.root / f"dist/libs/tiny-{name}-x86_64-linux-cpu.so") for name in QUANTIZING}
    assert {name: one.metadata.get("activations") for name, one in libraries.items()} == {
        name: "int8x2" if SCHEMES[name].rounds_activations else None for name in QUANTIZING
    }
    size = {name: records[f"tiny-{name}-x86_64-linux-cpu.so"]["bytes"] for name in QUANTIZING}
    assert size["q3f16_1"] < size["q4f16_1"] < size["q4f16_2"] < size["q0f16"]
    assert size["q0f16"] == size["q0bf16"]


def test_the_native_target_builds_and_runs(tmp_path: Path) -> None:
    manifest = TINY_MANIFEST.replace('"x86_64-linux-cpu"', '"x86_64-linux-cpu-native"')
    project = make_project(tmp_path, manifest, cached_checkpoint("qwen2"))
    project.build()
    (record,) = verified(project).values()
    assert record["distance"] < 1e-3


@pytest.mark.slow
def test_a_preset_builds_its_library_without_weights(tmp_path: Path) -> None:
    manifest = TINY_MANIFEST.replace('source = "checkpoint"\nconv-template = "chatml"', 'preset = "SmolLM2-135M"')
    project = make_project(tmp_path, manifest)
    assert project.build() == {"config": 1, "lower": 1, "link": 1}
    assert list(project.snapshot()) == ["libs/tiny-q4f32_1-x86_64-linux-cpu.so"]
    assert project.build() == {}


@pytest.mark.full
@pytest.mark.parametrize("name", [name for name in variants() if in_ci(name)])
def test_init_writes_a_manifest_that_builds_for_every_family(name: str, tmp_path: Path) -> None:
    project = make_project(tmp_path)
    config = variants()[name]
    write_checkpoint(project.root / "checkpoint", {**config, vocabulary_key(config): 512})
    Checkpoint(project.root / "checkpoint", CHATML)
    assert project.run("init", "checkpoint", "--force").code == 0
    project.build()
    (record,) = verified(project).values()
    assert record["distance"] < 1e-3


def test_init_writes_a_manifest_that_builds(tmp_path: Path) -> None:
    project = make_project(tmp_path, checkpoint=cached_checkpoint("qwen3"))
    (project.root / "buildfile.toml").unlink()
    result = project.run("init", "checkpoint")
    assert result.code == 0, result.text
    assert "# " in (project.root / "buildfile.toml").read_text()
    refused = project.run("init", "checkpoint")
    assert refused.code == 2
    assert "--force" in refused.err
    ran = project.build()
    assert (ran["fetch"], ran["quantize"], ran["config"]) == (1, 1, 1)
    assert len(verified(project)) >= 1
