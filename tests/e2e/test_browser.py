"""A library for browsers, run by the published npm package of WebLLM in headless Chromium, on WebGPU in software.

The page asks through WebLLM's OpenAI-style API; what it answers is held against the library for this machine's CPU.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers import browser
from tests.helpers.cli import ProjectDir, make_project
from tests.helpers.web_library import (
    ANSWER,
    CPU,
    QUESTION,
    WASM,
    greedy,
    likeliest,
    smollm2_manifest,
    told,
)

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
]


def ask(project: ProjectDir, model: str, *, timeout: float, **request: Any) -> Any:
    """The reply of WebLLM to a chat request, from a page that loaded the model."""
    script = ASK.replace("MODEL", f"{model}-MLC").replace("MODULE", f"{model}-{WASM}.wasm")
    script = script.replace("ASKED", json.dumps(request))
    place = browser.web_llm()
    assert place is not None
    found = browser.visit(script, {"web-llm": place, "dist": project.root / "dist"}, timeout=timeout)
    reply = found.value()
    assert found.shaders["count"] > 50
    return reply


def test_a_tiny_model_answers_in_the_browser_as_on_the_cpu(tiny_web: ProjectDir) -> None:
    found = told(ask(tiny_web, "tiny-q4f32_1", timeout=280, **likeliest("hi", 4, top=1)), 1)
    np.testing.assert_allclose(found, greedy(tiny_web, "tiny-q4f32_1", "hi", 4, top=1), atol=2e-3)


@pytest.mark.full
def test_the_real_model_answers_in_the_browser(tmp_path: Path) -> None:
    project = make_project(tmp_path, smollm2_manifest("q4f32_1"))
    project.build()
    asked = {"messages": [{"role": "user", "content": QUESTION}], "temperature": 0, "max_tokens": 12}
    reply = ask(project, "smollm2-q4f32_1", timeout=900, **asked)
    assert reply["choices"][0]["finish_reason"] == "stop"
    answer = project.run("chat", "--platform", CPU, "--prompt", QUESTION, "--temperature", "0", "--max-tokens", "12")
    assert reply["choices"][0]["message"]["content"] == answer.out.strip() == ANSWER
