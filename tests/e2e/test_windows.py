"""A library for Windows, made here and run there: the real model answers under Wine, by TVM's runtime for Windows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from llmbuild.conversation.prompt import render_prompt
from llmbuild.engine.store import Store
from tests.helpers import wine
from tests.helpers.cli import ProjectDir, make_project

ROOT = Path(__file__).parent.parent.parent
TARGET = "x86_64-windows-cpu"

pytestmark = [pytest.mark.slow, pytest.mark.skipif(wine.missing() is not None, reason=str(wine.missing()))]


def test_the_model_answers_on_windows(tmp_path: Path) -> None:
    manifest = (ROOT / "buildfile.example.toml").read_text().replace("x86_64-linux-cpu", TARGET)
    project = make_project(tmp_path, manifest)
    assert project.build() == {"fetch": 1, "quantize": 1, "config": 1, "lower": 1, "link": 1}

    weights = project.root / "dist/smollm2-q4f32_1-MLC"
    tokenizer = Tokenizer.from_file(str(weights / "tokenizer.json"))
    template = json.loads((weights / "mlc-chat-config.json").read_text())["conv_template"]
    prompt = render_prompt(template, [("user", "What is the capital of France?"), ("assistant", None)])
    ids = tokenizer.encode(prompt, add_special_tokens=False).ids

    library = project.root / f"dist/libs/smollm2-q4f32_1-{TARGET}.dll"
    answer = wine.machine().greedy(library, weights, parameters(project), ids, 8)
    # The same words as the library for Linux gives (tests/e2e/test_quick_start.py), and the end of the turn.
    assert tokenizer.decode(answer, skip_special_tokens=False) == "The capital of France is Paris.<|im_end|>"


def parameters(project: ProjectDir) -> list[str]:
    """The names of the parameters in the order in which the library takes them, from the record that lower wrote."""
    store = Store(project.store)
    (run,) = store.index.recent("lower")
    trace = store.traces.get(run.action)
    assert trace is not None
    (record,) = (file for file in store.cas.get_tree(trace.output).files if file.path == "metadata.json")
    metadata = json.loads(store.cas.get_bytes(record.digest))
    store.close()
    return [parameter["name"] for parameter in metadata["params"]]
