"""Weights by another method: as many bytes, of the same libraries, which compute with them what transformers does."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.checkpoints import cached_checkpoint, reference_model
from tests.helpers.cli import TINY_MANIFEST, make_project
from tests.helpers.logits import PROMPT, assert_prefill_and_decode, reference_logits, session
from tests.helpers.stored import load_stored_into


@pytest.mark.slow
def test_search_quantizes_anew_and_nothing_else(tmp_path: Path) -> None:
    project = make_project(tmp_path, TINY_MANIFEST, cached_checkpoint("llama"))
    project.build()
    directory = project.root / "dist/tiny-q4f32_1-MLC"
    rounded = {path.name: path.read_bytes() for path in directory.iterdir()}
    project.write(f'{TINY_MANIFEST}\n[quantizations.q4f32_1]\nmethod = "search"\n')
    assert project.build() == {"quantize": 1}
    searched = {path.name: path.read_bytes() for path in directory.iterdir()}
    changed = {name for name, data in searched.items() if data != rounded[name]}
    assert changed == {name for name in rounded if name.startswith(("params_shard_", "ndarray-cache", "tensor-cache"))}
    assert {name: len(data) for name, data in searched.items()} == {name: len(data) for name, data in rounded.items()}
    model = reference_model(project.root / "checkpoint")
    load_stored_into(model, directory, json.loads((project.root / "checkpoint/config.json").read_text()))
    running = session(project, "q4f32_1")
    running.add()
    found, wanted = running.prefill(PROMPT), reference_logits(model, PROMPT)[-1]
    assert np.linalg.norm(found - wanted) < 1e-3 * np.linalg.norm(wanted)


MIXED = """
[quantizations.mixed]
base = "q4f32_1"
method = "search"
overrides = [
    { match = "*.mlp.*", bits = 3 },
    { match = "*.down_proj", bits = 8, layers = "0" },
    { match = "*.o_proj", bits = 0, layers = "1" },
    { match = "lm_head", bits = 8 },
]
"""


@pytest.mark.slow
@pytest.mark.parametrize("checkpoint", ["llama", "llama-tied"])
def test_mixed_bits(checkpoint: str, tmp_path: Path) -> None:
    """0, 3, 4 and 8 bits in one model, whose library computes what transformers does with them; a tied head is the embedding."""
    project = make_project(
        tmp_path, TINY_MANIFEST.replace('"q4f32_1"', '"mixed"') + MIXED, cached_checkpoint(checkpoint)
    )
    project.build()
    directory = project.root / "dist/tiny-mixed-MLC"
    stored = {
        record["name"]: (record["dtype"], record["shape"])
        for shard in json.loads((directory / "tensor-cache.json").read_text())["records"]
        for record in shard["records"]
    }
    config = json.loads((project.root / "checkpoint/config.json").read_text())
    head = "model.embed_tokens" if config.get("tie_word_embeddings") else "lm_head"
    words = {name.removesuffix(".q_weight"): shape[1] for name, (_, shape) in stored.items() if "q_weight" in name}
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    assert words[head] == hidden // 4
    assert words["model.layers.0.self_attn.qkv_proj"] == hidden // 8
    assert words["model.layers.0.mlp.gate_up_proj"] == -(-hidden // 40) * 4
    assert words["model.layers.0.mlp.down_proj"] == inner // 4
    assert words["model.layers.1.mlp.down_proj"] == -(-inner // 40) * 4
    assert "model.layers.1.self_attn.o_proj.weight" in stored
    model = reference_model(project.root / "checkpoint")
    three = ["model.layers.0.mlp.gate_up_proj", *(f"model.layers.1.mlp.{name}_proj" for name in ("gate_up", "down"))]
    load_stored_into(model, directory, config, three)
    assert_prefill_and_decode(project, "mixed", model)
