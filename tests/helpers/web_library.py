"""What tests of libraries for browsers share: a tiny model's manifest, and what the library for the CPU says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.helpers.cli import ProjectDir
from tests.helpers.node import REPOSITORY

if TYPE_CHECKING:
    import numpy as np

WASM = "wasm32-webgpu"
CPU = "x86_64-linux-cpu"

QUESTION = "What is the capital of France?"
ANSWER = "The capital of France is Paris."
"""What SmolLM2 answers in every scheme."""


def tiny_manifest(scheme: str, window: str = "context-window-size = 128") -> str:
    """A model with its checkpoint in `checkpoint/`, for the browser and for this machine."""
    return f"""\
[project]
name = "web"

[models.tiny]
source = "checkpoint"
conv-template = "chatml_nosystem"
metadata = {{ {window}, prefill-chunk-size = 32, max-batch-size = 4 }}

[[build]]
models = ["tiny"]
quantizations = ["{scheme}"]
platforms = ["{CPU}", "{WASM}"]
"""


def smollm2_manifest(scheme: str) -> str:
    """The quick start's model for the browser and for this machine, with room for a question."""
    manifest = (REPOSITORY / "buildfile.example.toml").read_text()
    for old, new in (
        ("context-window-size = 2048", "context-window-size = 512, prefill-chunk-size = 64"),
        ('"q4f32_1"', f'"{scheme}"'),
        (f'platforms = ["{CPU}"]', f'platforms = ["{CPU}", "{WASM}"]'),
    ):
        assert old in manifest
        manifest = manifest.replace(old, new)
    return manifest


def likeliest(question: str, tokens: int, top: int) -> dict[str, Any]:
    """A chat request for the likeliest tokens with the probabilities of the `top` likeliest at each.

    It draws, at temperature 1, which is what the probabilities are told at, from the likeliest token only.
    """
    sampling = {"temperature": 1, "top_p": 1e-5, "max_tokens": tokens, "logprobs": True, "top_logprobs": top}
    return {"messages": [{"role": "user", "content": question}], **sampling}


def told(reply: Any, top: int) -> np.ndarray:
    """[tokens, top]: the logarithms of the probabilities in a reply to `likeliest`, the largest first."""
    import numpy as np

    content = reply["choices"][0]["logprobs"]["content"]
    assert reply["usage"]["completion_tokens"] == len(content)
    for each in content:
        assert each["logprob"] == each["top_logprobs"][0]["logprob"]
    return np.array([[one["logprob"] for one in each["top_logprobs"][:top]] for each in content])


def greedy(project: ProjectDir, model: str, question: str, tokens: int, top: int) -> np.ndarray:
    """The same by the library for the CPU."""
    import numpy as np

    from llmbuild.conversation.prompt import render_prompt
    from llmbuild.runtime.chat_config import read_chat_config
    from llmbuild.runtime.library import load_library
    from llmbuild.runtime.session import Session
    from llmbuild.runtime.tokenizer import load_tokenizer
    from llmbuild.runtime.weights import load_parameters

    weights = project.root / "dist" / f"{model}-MLC"
    library = load_library(project.root / "dist" / "libs" / f"{model}-{CPU}.so")
    session = Session(library, load_parameters(library, weights), capacity=128)
    session.add()
    prompt = render_prompt(read_chat_config(weights)["conv_template"], [("user", question), ("assistant", None)])
    logits = session.prefill(load_tokenizer(weights).encode(prompt, add_special_tokens=False).ids)
    found = []
    for _ in range(tokens):
        # WebLLM looks at the tokens that the tokenizer has, and not at the further rows of the head.
        wide = logits[: library.metadata["active_vocab_size"]].astype("float64")
        found.append(np.sort(wide)[::-1][:top] - wide.max() - np.log(np.exp(wide - wide.max()).sum()))
        logits = session.decode(int(np.argmax(wide)))
    return np.array(found)
