"""A library for browsers, run by the published npm package of WebLLM in headless Chromium, on WebGPU in software.

The page asks through WebLLM's OpenAI-style API; what it answers is held against the library for this machine's CPU.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers import browser
from tests.helpers.checkpoints import cached_checkpoint
from tests.helpers.cli import ProjectDir, make_project
from tests.helpers.web_runtime import seed

ROOT = Path(__file__).parent.parent.parent
WASM = "wasm32-webgpu"
CPU = "x86_64-linux-cpu"
TINY = f"""\
[project]
name = "web"

[models.tiny]
source = "checkpoint"
conv-template = "chatml_nosystem"
metadata = {{ context-window-size = 128, prefill-chunk-size = 32, max-batch-size = 4 }}

[[build]]
models = ["tiny"]
quantizations = ["q4f32_1"]
platforms = ["{CPU}", "{WASM}"]
"""

# A page of an application: a model's directory and its library by their addresses, then a question.
ASK = """
const webllm = await import("/web-llm/lib/index.js");
const record = {model: location.origin + "/dist/MODEL/", model_id: "it", model_lib: location.origin + "/dist/libs/MODULE"};
const engine = await webllm.CreateMLCEngine("it", {appConfig: {model_list: [record]}});
return await engine.chat.completions.create(ASKED);
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(browser.missing() is not None, reason=str(browser.missing())),
    pytest.mark.xdist_group("browser"),
]


def served(project: ProjectDir, directory: str) -> Path:
    """A directory as a server lays a model out: WebLLM asks for <model>/resolve/main/<file>."""
    root = project.root / "served"
    (root / "model" / "resolve").mkdir(parents=True)
    (root / "model" / "resolve" / "main").symlink_to(project.root / "dist" / directory)
    (root / "libs").symlink_to(project.root / "dist" / "libs")
    return root


def ask(project: ProjectDir, model: str, *, timeout: float, **request: Any) -> Any:
    """The reply of WebLLM to a chat request, from a page that loaded the model."""
    script = ASK.replace("MODEL", "model").replace("MODULE", f"{model}-{WASM}.wasm")
    script = script.replace("ASKED", json.dumps(request))
    place = browser.web_llm()
    assert place is not None
    roots = {"web-llm": place, "dist": served(project, f"{model}-MLC")}
    found = browser.visit(script, roots, timeout=timeout)
    reply = found.value()
    assert found.shaders["count"] > 50
    return reply


def greedy(project: ProjectDir, model: str, question: str, count: int) -> list[float]:
    """The logarithms of the probabilities of the likeliest `count` tokens, by the library for the CPU."""
    from llmbuild.conversation.prompt import render_prompt
    from llmbuild.runtime.chat import load_tokenizer, read_chat_config
    from llmbuild.runtime.library import load_library
    from llmbuild.runtime.session import Session
    from llmbuild.runtime.weights import load_parameters

    weights = project.root / "dist" / f"{model}-MLC"
    library = load_library(project.root / "dist" / "libs" / f"{model}-{CPU}.so")
    session = Session(library, load_parameters(library, weights), capacity=128)
    session.add()
    prompt = render_prompt(read_chat_config(weights)["conv_template"], [("user", question), ("assistant", None)])
    tokens = load_tokenizer(weights).encode(prompt, add_special_tokens=False).ids
    found = []
    logits = session.prefill(tokens)
    for _ in range(count):
        # WebLLM looks at the tokens that the tokenizer has, and not at the further rows of the head.
        wide = logits[: library.metadata["active_vocab_size"]].astype("float64")
        found.append(-math.log(np.exp(wide - wide.max()).sum()))
        logits = session.decode(int(np.argmax(wide)))
    return found


def test_a_tiny_model_answers_in_the_browser_as_on_the_cpu(tmp_path: Path) -> None:
    project = make_project(tmp_path, TINY, cached_checkpoint("llama"))
    seed(project.store)
    ran = {"fetch": 1, "quantize": 1, "config": 1, "lower": 2, "link": 2}
    assert project.build() == ran
    assert project.build() == {}
    # Of the likeliest token only, so that it is always chosen, by its probability at temperature 1.
    sampling = {"temperature": 1, "top_p": 1e-5, "max_tokens": 4, "logprobs": True, "top_logprobs": 1}
    question = [{"role": "user", "content": "hi"}]
    reply = ask(project, "tiny-q4f32_1", timeout=280, messages=question, **sampling)
    choice = reply["choices"][0]
    found = [each["logprob"] for each in choice["logprobs"]["content"]]
    assert reply["usage"]["completion_tokens"] == len(found) == 4
    np.testing.assert_allclose(found, greedy(project, "tiny-q4f32_1", "hi", 4), atol=2e-3)


@pytest.mark.full
def test_the_real_model_answers_in_the_browser(tmp_path: Path) -> None:
    manifest = (ROOT / "buildfile.example.toml").read_text()
    manifest = manifest.replace("context-window-size = 2048", "context-window-size = 512, prefill-chunk-size = 64")
    project = make_project(tmp_path, manifest.replace(f'"{CPU}"', f'"{CPU}", "{WASM}"'))
    project.build()
    question = "What is the capital of France?"
    asked = {"messages": [{"role": "user", "content": question}], "temperature": 0, "max_tokens": 12}
    reply = ask(project, "smollm2-q4f32_1", timeout=900, **asked)
    assert reply["choices"][0]["finish_reason"] == "stop"
    answer = project.run("chat", "--platform", CPU, "--prompt", question, "--temperature", "0", "--max-tokens", "12")
    assert reply["choices"][0]["message"]["content"] == answer.out.strip() == "The capital of France is Paris."
