"""What a comparison with transformers says where there is none."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from llmbuild.errors import InputError, ToolchainError
from llmbuild.runtime.against import (
    STEPS,
    agreement,
    reference_logits,
    require_transformers,
    sample_texts,
    write_checkpoint,
)
from tests.helpers.variants import SHARED

TEXTS = sample_texts(160, 64)


def test_a_package_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    require_transformers()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ToolchainError, match="the Python package transformers is not installed"):
        require_transformers()


@pytest.mark.parametrize("config", [{"model_type": "parrot"}, {}, {"model_type": "llama", "hidden_size": "x"}])
def test_a_model_that_transformers_lacks_is_not_compared(tmp_path: Path, config: dict[str, str]) -> None:
    write_checkpoint(tmp_path, config, {"x": np.zeros(1, np.float32)})
    with pytest.raises(InputError, match="transformers cannot run this model"):
        reference_logits(tmp_path, TEXTS)


def test_a_tensor_that_only_transformers_needs_is_named(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, {**SHARED, "model_type": "llama"}, {"lm_head.weight": np.zeros((160, 64), np.float32)})
    with pytest.raises(InputError, match="which the checkpoint does not have"):
        reference_logits(tmp_path, TEXTS)


def test_texts_are_the_same_each_time_and_fit_the_context() -> None:
    assert sample_texts(160, 64) == TEXTS and all(0 <= one < 160 for text in TEXTS for one in text)
    assert [len(text) - STEPS for text in TEXTS] == [3, 12, 24]
    assert [len(text) for text in sample_texts(5, 16)] == [9, 16, 16]


def test_an_agreement_counts_positions() -> None:
    first = np.array([[1.0, 0.0], [0.0, 1.0]])
    found = agreement([first, first], [first, first[::-1]])
    assert (found.same, found.positions) == (2, 4) and found.distance == pytest.approx(1.0)
