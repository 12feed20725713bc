"""A library for browsers in 16-bit floats is executed: by WebLLM in Node.js, on Dawn, with Mesa's Vulkan for CPUs.

Chromium's own software adapter has no 16-bit floats (tests/e2e/test_browser.py is for 32 bits).  What takes the time is
Mesa's compiler: it keeps what it compiled in the user's cache, so a second run takes seconds.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.helpers import dawn
from tests.helpers.checkpoints import VOCAB, cached_checkpoint, reference_model, write_tokenizer
from tests.helpers.cli import ProjectDir, make_project
from tests.helpers.logits import PROMPT, reference_logits, session
from tests.helpers.stored import load_stored_into
from tests.helpers.variants import variants, write_checkpoint
from tests.helpers.web_library import (
    ANSWER,
    CPU,
    QUESTION,
    WASM,
    greedy,
    likeliest,
    smollm2_manifest,
    tiny_manifest,
    told,
)
from tests.helpers.web_runtime import seed

# More tokens than one prefill chunk of the tiny models, so the second chunk attends to what the first one left.
LONG = "hi, who are you and what can you do?"
# The models here are up to 0.016 apart.  Matrix products add up in 16 bits on a GPU and in 32 on a CPU.
TOLERANCE = 5e-2
# A window and not a context, since WebLLM takes one of the two: the question is longer than it.
WINDOW = {"mistral": {"window": "sliding-window-size = 32, attention-sink-size = 4"}}
# Past its windows of 8 the first also has caps on scores and logits; the last has interleaved rotary.
VARIANTS = ("gemma2/caps and windows", "mistral/window", "cohere/norms of q and k")

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _needs() -> None:
    if reason := dawn.missing():
        pytest.skip(reason)


def test_a_tiny_model_answers_in_16_bits_as_on_the_cpu_in_the_computed_memory(tmp_path: Path) -> None:
    project, answer = answers_as_on_the_cpu(cached_checkpoint("gpt_neox"), tmp_path)
    record = project.root / "dist" / "libs" / f"tiny-q4f16_1-{WASM}.wasm.json"
    dawn.check_memory(answer, json.loads(record.read_text()))


@pytest.mark.full
@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3"])
def test_a_tiny_model_of_each_family(family: str, tmp_path: Path) -> None:
    answers_as_on_the_cpu(cached_checkpoint(family), tmp_path, **WINDOW.get(family, {}))


@pytest.mark.full
@pytest.mark.parametrize("variant", VARIANTS)
def test_windows_caps_and_interleaved_rotary(variant: str, tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "checkpoint", {**variants()[variant], "vocab_size": VOCAB})
    write_tokenizer(tmp_path / "checkpoint", "byte-level")
    answers_as_on_the_cpu(tmp_path / "checkpoint", tmp_path)


SCHEMES = {
    "head": 'method = "search"\noverrides = [{ match = "lm_head", bits = 8 }]',
    "mixed": 'method = "search"\noverrides = [{ match = "*.o_proj", bits = 0 }, { match = "*.mlp.*", bits = 3 }, '
    '{ match = "lm_head", bits = 8 }, { match = "*.down_proj", bits = 8, layers = "1" }]',
    "searched": 'method = "search"',
    "eight": "bits = 8",
}


@pytest.mark.parametrize(
    "name", ["head", *(pytest.param(each, marks=pytest.mark.full) for each in ("mixed", "searched", "eight"))]
)
def test_better_weights_than_rounded_ones(name: str, tmp_path: Path) -> None:
    """8 bits alone or among others; and the CPU's library says what transformers does with the stored weights."""
    table = f'\n[quantizations.{name}]\nbase = "q4f16_1"\n{SCHEMES[name]}\n'
    project, _ = answers_as_on_the_cpu(cached_checkpoint("llama"), tmp_path, scheme=name, more=table)
    model = reference_model(project.root / "checkpoint")
    config = json.loads((project.root / "checkpoint/config.json").read_text())
    mlp = ["model.layers.0.mlp.gate_up_proj", "model.layers.0.mlp.down_proj", "model.layers.1.mlp.gate_up_proj"]
    load_stored_into(model, project.root / f"dist/tiny-{name}-MLC", config, mlp if name == "mixed" else ())
    running = session(project, name, capacity=128)
    running.add()
    found, wanted = running.prefill(PROMPT), reference_logits(model, PROMPT)[-1]
    assert np.linalg.norm(found - wanted) < 1e-2 * np.linalg.norm(wanted)


def answers_as_on_the_cpu(
    checkpoint: Path, tmp_path: Path, *, scheme: str = "q4f16_1", more: str = "", **settings: str
) -> tuple[ProjectDir, dawn.Answer]:
    """Build a checkpoint for the browser and for the CPU, and compare what WebLLM and the CPU's library say."""
    project = make_project(tmp_path, tiny_manifest(scheme, **settings) + more, checkpoint)
    seed(project.store)
    project.build()
    answer = dawn.ask(project.root / "dist", f"tiny-{scheme}", timeout=280, **likeliest(LONG, 4, top=5))
    assert answer.shaders > 50
    found = told(answer.reply, 5)
    np.testing.assert_allclose(
        found, greedy(project, f"tiny-{scheme}", LONG, 4, top=5), atol=TOLERANCE, err_msg=answer.adapter
    )
    return project, answer


@pytest.mark.full
def test_the_real_model_answers_in_16_bits(tmp_path: Path) -> None:
    project = make_project(tmp_path, smollm2_manifest("q4f16_1"))
    seed(project.store)
    project.build()
    asked = {"messages": [{"role": "user", "content": QUESTION}], "temperature": 0, "max_tokens": 12}
    reply = dawn.ask(project.root / "dist", "smollm2-q4f16_1", timeout=900, **asked).reply
    assert reply["choices"][0]["finish_reason"] == "stop"
    answer = project.run("chat", "--platform", CPU, "--prompt", QUESTION, "--temperature", "0", "--max-tokens", "12")
    assert reply["choices"][0]["message"]["content"] == answer.out.strip() == ANSWER
