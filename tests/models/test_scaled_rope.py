"""Scaled RoPE in a library, past the original context, against transformers.

dynamic and longrope go by the length of a text there: transformers runs once over all tokens, which are as many as the context
that the library is built for.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers.checkpoints import make_checkpoint
from tests.helpers.generic_library import GenericLibrary, reference_logits, tails

TOKENS = [int(token) for token in np.random.default_rng(3).integers(3, 310, 90)]
PROMPT = 84
LENGTH = {"original_max_position_embeddings": 32}
LISTS = {"short_factor": [1.0 + 0.1 * i for i in range(32)], "long_factor": [2.0 + 0.5 * i for i in range(32)]}

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "linear": ("llama-gqa", {"factor": 4.0}),
    "llama3": ("mistral", {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, **LENGTH}),
    "yarn": ("qwen2", {"factor": 4.0, **LENGTH}),
    "longrope": ("qwen3", {**LISTS, **LENGTH, "factor": 4.0}),
    "dynamic": ("llama", {"factor": 2.0}),
    "proportional": ("llama", {"partial_rotary_factor": 0.5}),
}


@pytest.mark.parametrize("kind", CASES)
def test_logits_past_the_original_context(kind: str, tmp_path: Path) -> None:
    variant, numbers = CASES[kind]
    config: dict[str, Any] = {
        "rope_scaling": {"rope_type": kind, **numbers},
        "max_position_embeddings": 32 if kind == "dynamic" else 128,
    }
    if variant == "mistral":
        config["sliding_window"] = None
    directory = make_checkpoint(tmp_path / "checkpoint", variant, config=config)
    library = GenericLibrary(directory, functions=("embed", "prefill", "decode"), context_window_size=len(TOKENS))
    expected = reference_logits(directory, TOKENS)[PROMPT - 1 :]
    tails(library.generate(TOKENS[:PROMPT], TOKENS[PROMPT:], chunk=32), expected, 2e-5)
