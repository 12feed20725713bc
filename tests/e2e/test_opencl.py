"""The real model with the kernels of an OpenCL library, which PoCL runs, gives the answer that the CPU library gives.

CI holds tiny models on PoCL against transformers (tests/compiler/test_gpu_families.py, test_pipeline_gpu.py).
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.cli import make_project
from tests.helpers.opencl import require
from tests.helpers.opencl_library import OpenCLLibrary

ROOT = Path(__file__).parent.parent.parent
QUESTION = "What is the capital of France?"
END = 2


@pytest.mark.full
def test_the_model_answers_on_opencl(tmp_path: Path) -> None:
    require()
    from tokenizers import Tokenizer

    from llmbuild.conversation.prompt import render_prompt
    from llmbuild.runtime.chat_config import read_chat_config

    project = make_project(tmp_path, (ROOT / "buildfile.example.toml").read_text())
    project.build()
    weights = project.root / "dist/smollm2-q4f32_1-MLC"
    library = OpenCLLibrary(weights, "q4f32_1", context_window_size=512, prefill_chunk_size=128)
    tokenizer = Tokenizer.from_file(str(weights / "tokenizer.json"))
    library.start(tokens=512)
    prompt = render_prompt(read_chat_config(weights)["conv_template"], [("user", QUESTION), ("assistant", None)])
    logits = library.forward("prefill", tokenizer.encode(prompt, add_special_tokens=False).ids)
    answer = [int(logits[0, 0].argmax())]
    while answer[-1] != END and len(answer) < 12:
        answer.append(int(library.forward("decode", answer[-1:])[0, 0].argmax()))
    # The same words as the library for x86-64 gives (tests/e2e/test_quick_start.py).
    assert tokenizer.decode(answer) == "The capital of France is Paris."
