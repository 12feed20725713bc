"""A library for Windows, made here and run there: the real model answers under Wine, by TVM's runtime for Windows."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from llmbuild.conversation.prompt import render_prompt
from tests.helpers import wine
from tests.helpers.applications import parameters
from tests.helpers.cli import make_project
from tests.helpers.two_models import MODELS, make_two_models

ROOT = Path(__file__).parent.parent.parent
TARGET = "x86_64-windows-cpu"

pytestmark = [pytest.mark.slow, pytest.mark.skipif(wine.missing() is not None, reason=str(wine.missing()))]


def test_the_model_answers_on_windows(tmp_path: Path) -> None:
    manifest = (ROOT / "buildfile.example.toml").read_text().replace("x86_64-linux-cpu", TARGET)
    project = make_project(tmp_path, manifest)
    assert project.build() == {"fetch": 1, "inspect": 1, "quantize": 1, "config": 1, "lower": 1, "link": 1}

    weights = project.root / "dist/smollm2-q4f32_1-MLC"
    tokenizer = Tokenizer.from_file(str(weights / "tokenizer.json"))
    template = json.loads((weights / "mlc-chat-config.json").read_text())["conv_template"]
    prompt = render_prompt(template, [("user", "What is the capital of France?"), ("assistant", None)])
    ids = tokenizer.encode(prompt, add_special_tokens=False).ids

    library = project.root / f"dist/libs/smollm2-q4f32_1-{TARGET}.dll"
    answer = wine.machine().greedy(library, weights, parameters(project.store, "llama"), ids, 8)
    # The same words as the library for Linux gives (tests/e2e/test_quick_start.py), and the end of the turn.
    assert tokenizer.decode(answer, skip_special_tokens=False) == "The capital of France is Paris.<|im_end|>"


STATIC = """\
[platforms.dll]
target = "x86_64-windows-cpu"

[platforms.tar]
target = "x86_64-windows-cpu"
artifact = "tar"
system-lib-prefix = "{model_type}_"

[[build]]
models = ["llama", "qwen2"]
quantizations = ["q4f32_1"]
platforms = ["dll", "tar"]
"""


@pytest.mark.full
def test_two_models_are_linked_into_one_application(tmp_path: Path) -> None:
    project = make_two_models(tmp_path, STATIC)
    assert project.build()["link"] == 4
    libs = project.root / "dist/libs"
    for model in MODELS:
        with tarfile.open(libs / f"{model}-q4f32_1-tar.tar") as archive:
            archive.extractall(tmp_path / "objects", filter="data")
    machine, application = wine.machine(), tmp_path / "application.exe"
    machine.link_application(sorted((tmp_path / "objects").iterdir()), application)

    prompt = [5, 7, 11, 13, 17, 19, 23]
    answers = {}
    for model in MODELS:
        weights, library = project.root / f"dist/{model}-q4f32_1-MLC", libs / f"{model}-q4f32_1-dll.dll"
        names = parameters(project.store, model)
        answers[model] = machine.greedy(f"system:{model}_", weights, names, prompt, 16, application)
        assert answers[model] == machine.greedy(library, weights, names, prompt, 16)
    assert answers["llama"] != answers["qwen2"]
