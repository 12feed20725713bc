"""Built libraries against references: transformers for unquantized schemes, a NumPy dequantizer for 4 bits.

What is compared is what a user gets: a checkpoint goes through `llmbuild build`, and library and weights come from dist.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers.checkpoints import cached_checkpoint, reference_model
from tests.helpers.cli import ProjectDir, make_project
from tests.helpers.logits import (
    PROMPT,
    STEPS,
    TOLERANCE,
    assert_close,
    assert_prefill_and_decode,
    reference_logits,
    session,
)

MANIFEST = """\
[project]
name = "numeric"

[models.tiny]
source = "checkpoint"
conv-template = "LM"

[metadata]
{metadata}

[[build]]
models = ["tiny"]
quantizations = ["{scheme}"]
platforms = ["x86_64-linux-cpu"]
"""


def build(directory: Path, variant: str, scheme: str, metadata: str = "context-window-size = 256") -> ProjectDir:
    project = make_project(directory, MANIFEST.format(scheme=scheme, metadata=metadata), cached_checkpoint(variant))
    project.build()
    return project


def stored_reference(project: ProjectDir, scheme: str) -> Any:
    """The checkpoint as transformers runs it, with every weight replaced by what the built weights hold."""
    from tests.helpers.stored import load_stored_into

    model = reference_model(project.root / "checkpoint")
    load_stored_into(
        model,
        project.root / f"dist/tiny-{scheme}-MLC",
        json.loads((project.root / "checkpoint/config.json").read_text()),
    )
    return model


def some(usual: set[str], *others: str) -> list[Any]:
    """The variants that CI builds, and those that only `-m full` builds: tests/models has every family in every run."""
    return [*sorted(usual), *(pytest.param(name, marks=pytest.mark.full) for name in others)]


@pytest.mark.parametrize(
    "variant",
    some(
        {"mistral"},
        *("gpt_neox", "llama", "llama-gqa", "llama-tied", "llama-bias", "llama3", "llama3-rope-parameters"),
        *("gpt_neox-sequential", "qwen2", "qwen2-tied", "qwen3", "qwen3-tied"),
    ),
)
def test_q0f32_agrees_with_transformers(variant: str, tmp_path: Path) -> None:
    project = build(tmp_path, variant, "q0f32", _window(variant))
    assert_prefill_and_decode(project, "q0f32", stored_reference(project, "q0f32"))


@pytest.mark.parametrize("variant", some({"llama-tied"}, "llama-bias", "gpt_neox", "qwen2", "qwen3", "mistral"))
def test_q4f32_1_agrees_with_the_dequantized_weights(variant: str, tmp_path: Path) -> None:
    project = build(tmp_path, variant, "q4f32_1", _window(variant))
    assert_prefill_and_decode(project, "q4f32_1", stored_reference(project, "q4f32_1"))


def test_the_weights_that_are_stored_differ_from_the_checkpoints(tmp_path: Path) -> None:
    """The comparison above would be empty if the reference had not really taken the stored weights."""
    project = build(tmp_path, "llama-gqa", "q4f32_1")
    original = reference_logits(reference_model(project.root / "checkpoint"), PROMPT)
    stored = reference_logits(stored_reference(project, "q4f32_1"), PROMPT)
    assert np.linalg.norm(original - stored) / np.linalg.norm(original) > 10 * TOLERANCE


def test_chunked_prefill_and_several_pages(tmp_path: Path) -> None:
    """A prompt of 150 tokens goes through chunks of 32 and pages of 16, and decoding goes on after it."""
    project = build(tmp_path, "llama3", "q0f32", "context-window-size = 256\nprefill-chunk-size = 32")
    tokens = [int(token) for token in np.random.default_rng(0).integers(3, 300, 155)]
    wanted = reference_logits(stored_reference(project, "q0f32"), tokens)
    running = session(project, "q0f32")
    running.add()
    assert running.chunk == 32
    assert_close(running.prefill(tokens[:150]), wanted[149])
    for position in range(150, 155):
        assert_close(running.decode(tokens[position]), wanted[position])


def test_two_sequences_in_one_batch(tmp_path: Path) -> None:
    project = build(tmp_path, "llama-gqa", "q0f32")
    model = stored_reference(project, "q0f32")
    prompts = {0: PROMPT, 1: PROMPT[:4][::-1]}
    running = session(project, "q0f32", sequences=2, capacity=512)
    for sequence in prompts:
        running.add(sequence)
    first = running.batch_prefill(prompts)
    wanted = {sequence: reference_logits(model, prompt + STEPS) for sequence, prompt in prompts.items()}
    for sequence, prompt in prompts.items():
        assert_close(first[sequence], wanted[sequence][len(prompt) - 1])
    for step, token in enumerate(STEPS):
        logits = running.batch_decode({0: token, 1: token})
        for sequence, prompt in prompts.items():
            assert_close(logits[sequence], wanted[sequence][len(prompt) + step])


def test_a_sliding_window_forgets_all_but_the_sinks(tmp_path: Path) -> None:
    """Past the window, each token sees the attention sinks and the latest tokens: a mask says the same to transformers."""
    from tests.helpers.stored import windowed_logits

    project = build(
        tmp_path, "mistral", "q0f32", "sliding-window-size = 32\nattention-sink-size = 4\nprefill-chunk-size = 16"
    )
    config = json.loads((project.root / "dist/tiny-q0f32-MLC/mlc-chat-config.json").read_text())
    assert (config["context_window_size"], config["sliding_window_size"], config["attention_sink_size"]) == (-1, 32, 4)
    tokens = [int(token) for token in np.random.default_rng(1).integers(3, 300, 60)]
    running = session(project, "q0f32", capacity=64)
    running.add()
    found = [running.prefill(tokens[:16])]
    found += [running.decode(token) for token in tokens[16:]]
    wanted = windowed_logits(stored_reference(project, "q0f32"), tokens, window=32, sink=4)
    assert_close(found[0], wanted[15])
    assert_close(found[-1], wanted[-1])
    for step, logits in enumerate(found[1:], start=16):
        assert_close(logits, wanted[step])


def test_exact_float32_is_stored_when_asked_for(tmp_path: Path) -> None:
    manifest = MANIFEST.format(scheme="q0f32", metadata="context-window-size = 256").replace(
        'conv-template = "LM"', 'conv-template = "LM"\nfloat32 = "exact"'
    )
    project = make_project(tmp_path, manifest, cached_checkpoint("llama-gqa"))
    project.build()
    wanted = reference_logits(reference_model(project.root / "checkpoint"), PROMPT)[-1]
    running = session(project, "q0f32")
    running.add()
    found = running.prefill(PROMPT)
    assert np.linalg.norm(found - wanted) / np.linalg.norm(wanted) < 1e-4


def test_a_lora_adapter_is_merged(tmp_path: Path) -> None:
    from tests.helpers.stored import make_adapter

    manifest = MANIFEST.format(scheme="q0f32", metadata="context-window-size = 256").replace(
        'conv-template = "LM"', 'conv-template = "LM"\nfloat32 = "exact"\nadapter = "adapter"'
    )
    project = make_project(tmp_path, manifest, cached_checkpoint("llama-gqa"))
    merged = make_adapter(project.root / "checkpoint", project.root / "adapter")
    project.build()
    wanted = reference_logits(merged, PROMPT)[-1]
    plain = reference_logits(reference_model(project.root / "checkpoint"), PROMPT)[-1]
    assert np.linalg.norm(plain - wanted) / np.linalg.norm(wanted) > 0.01
    running = session(project, "q0f32")
    running.add()
    found = running.prefill(PROMPT)
    assert np.linalg.norm(found - wanted) / np.linalg.norm(wanted) < 1e-4
    shutil.rmtree(project.root / "adapter")
    make_adapter(project.root / "checkpoint", project.root / "adapter", seed=9)
    ran = project.build()
    assert (ran["quantize"], ran["lower"], ran["link"]) == (1, 0, 0)


def _window(variant: str) -> str:
    if variant == "mistral":
        return "sliding-window-size = 64\nprefill-chunk-size = 32"
    return "context-window-size = 256"
