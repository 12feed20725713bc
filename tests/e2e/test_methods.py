"""Weights by another method: as many bytes, of the same libraries, which compute with them what transformers does."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.checkpoints import cached_checkpoint, reference_model
from tests.helpers.cli import TINY_MANIFEST, make_project
from tests.helpers.logits import PROMPT, reference_logits, session
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
