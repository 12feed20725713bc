"""The memory that WebLLM takes on WebGPU for a model of a billion parameters, against the figure of its library's record.

Mesa's compiler takes minutes for its shaders, and keeps them in the user's cache.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llmbuild.conversation.templates import resolve_template
from llmbuild.models.family import Overrides
from llmbuild.models.presets import preset
from tests.helpers import dawn
from tests.helpers.checkpoints import write_tokenizer
from tests.helpers.cli import make_project
from tests.helpers.made_weights import write_weights
from tests.helpers.tiny_library import chat_config
from tests.helpers.web_library import WASM
from tests.helpers.web_runtime import seed

SIZES = Overrides(context_window_size=4096, prefill_chunk_size=1024)
MANIFEST = f"""\
[project]
name = "billion"

[models.llama]
preset = "Llama-3.2-1B"
conv-template = "chatml"
metadata = {{ context-window-size = {SIZES.context_window_size}, prefill-chunk-size = {SIZES.prefill_chunk_size} }}

[[build]]
models = ["llama"]
quantizations = ["SCHEME"]
platforms = ["{WASM}"]
"""


@pytest.mark.full
@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["q4f32_1", "q4f16_1"])
def test_buffers_of_a_model_of_a_billion_are_what_its_record_says(scheme: str, tmp_path: Path) -> None:
    if reason := dawn.missing():
        pytest.skip(reason)
    project = make_project(tmp_path, MANIFEST.replace("SCHEME", scheme))
    seed(project.store)
    project.build()
    dist, model = project.root / "dist", f"llama-{scheme}"
    record = json.loads((dist / "libs" / f"{model}-{WASM}.wasm.json").read_text())
    config = {
        **chat_config(preset("Llama-3.2-1B"), scheme, SIZES),
        "conv_template": resolve_template("chatml", tmp_path),
        "tokenizer_files": ["tokenizer.json", "tokenizer_config.json"],
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
    }
    write_weights(dist / f"{model}-MLC", record, config)
    write_tokenizer(dist / f"{model}-MLC", "byte-level")
    asked = {"messages": [{"role": "user", "content": "h"}], "temperature": 0, "max_tokens": 1}
    dawn.check_memory(dawn.ask(dist, model, timeout=1800, **asked), record)
