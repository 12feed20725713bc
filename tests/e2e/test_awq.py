"""Checkpoints that AWQ quantized: weights are taken over bit by bit, and libraries compute with them as transformers does."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.awq import make_awq_checkpoint
from tests.helpers.checkpoints import cached_checkpoint, reference_model
from tests.helpers.cli import ProjectDir, make_project
from tests.helpers.logits import assert_prefill_and_decode
from tests.helpers.reference_quant import read_weights

MANIFEST = """\
[project]
name = "packed"

[models.tiny]
source = "checkpoint"
conv-template = "LM"
float32 = "exact"

[metadata]
context-window-size = 256

[quantizations.wide]
base = "q4f16_awq"
dtype = "float32"
group-size = {group}

[[build]]
models = ["tiny"]
quantizations = [{schemes}]
platforms = ["x86_64-linux-cpu"]
"""


def awq_project(directory: Path, variant: str, *schemes: str, group: int = 128) -> ProjectDir:
    names = ", ".join(f'"{scheme}"' for scheme in schemes)
    project = make_project(directory, MANIFEST.format(schemes=names, group=group))
    make_awq_checkpoint(project.root / "checkpoint", directory / "plain", variant, group)
    return project


@pytest.mark.parametrize(
    ("variant", "group"),
    [
        ("qwen2", 64),
        pytest.param("llama-gqa", 128, marks=pytest.mark.full),
        pytest.param("mistral", 32, marks=pytest.mark.full),
    ],
)
def test_logits_are_those_of_the_unpacked_weights(variant: str, group: int, tmp_path: Path) -> None:
    project = awq_project(tmp_path, variant, "wide", group=group)
    project.build()
    assert_prefill_and_decode(project, "wide", reference_model(tmp_path / "plain"))


def test_weights_are_taken_over(tmp_path: Path) -> None:
    project = awq_project(tmp_path, "llama", "q4f16_awq", "q4f16_autoawq")
    project.build()
    from safetensors.numpy import load_file

    source = load_file(project.root / "checkpoint/model.safetensors")
    stored, totals = read_weights(project.root / "dist/tiny-q4f16_awq-MLC")
    layer = "model.layers.1"
    for name in ("qweight", "qzeros", "scales"):
        joined = np.concatenate([source[f"{layer}.self_attn.{part}_proj.{name}"] for part in "qkv"], axis=1)
        found = stored[f"{layer}.self_attn.qkv_proj.{name}"]
        assert found.dtype == (np.float16 if name == "scales" else np.uint32)
        assert found.tobytes() == joined.tobytes()
        assert stored[f"{layer}.mlp.down_proj.{name}"].tobytes() == source[f"{layer}.mlp.down_proj.{name}"].tobytes()
    assert stored["lm_head.weight"].tobytes() == source["lm_head.weight"].tobytes()
    assert stored["model.embed_tokens.weight"].dtype == np.float16
    assert totals["ParamSize"] == len(stored)
    config = json.loads((project.root / "dist/tiny-q4f16_awq-MLC/mlc-chat-config.json").read_text())
    assert config["quantization"] == "q4f16_awq"
    verified = project.run("verify", "--json")
    assert verified.code == 0, verified.text
    assert len(verified.out.splitlines()) == 2


def test_packed_weights_are_a_source_of_other_schemes(tmp_path: Path) -> None:
    project = awq_project(tmp_path, "llama", "q0f32", group=64)
    project.build()
    assert_prefill_and_decode(project, "q0f32", reference_model(tmp_path / "plain"))


def error_of(project: ProjectDir) -> str:
    result = project.run("build")
    assert result.code == 3, result.text
    return " ".join(result.err.split())


def test_what_does_not_fit_is_said(tmp_path: Path) -> None:
    project = awq_project(tmp_path / "group", "llama", "q4f16_awq", group=64)
    found = error_of(project)
    assert "quantization_config.group_size: q4f16_awq does not describe this checkpoint" in found
    assert '[quantizations.NAME] base = "q4f16_awq", group-size = 64' in found

    project = make_project(
        tmp_path / "plain", MANIFEST.format(schemes='"q4f16_awq"', group=128), cached_checkpoint("llama")
    )
    assert "q4f16_awq needs a checkpoint that was quantized by AWQ" in error_of(project)
