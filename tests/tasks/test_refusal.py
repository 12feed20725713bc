"""What is refused by a description alone is what the tasks refuse, and nothing of what they build."""

from __future__ import annotations

from typing import Any

import pytest

from llmbuild.errors import InputError, MultiError
from llmbuild.quantization.scheme import SCHEMES
from llmbuild.tasks.refusal import placed, refusal
from tests.helpers.checkpoints import CONFIGS

PARAMS: dict[str, Any] = {
    "model-type": None,
    "ignore-keys": [],
    "metadata": {"context-window-size": 64},
    "preset": None,
    "conversation": "checkpoint",
}


@pytest.mark.parametrize("variant", sorted(CONFIGS))
def test_nothing_that_is_built_is_refused(variant: str) -> None:
    config = CONFIGS[variant]
    for kind in ("config", "inspect", "quantize"):
        for scheme in ("q0f16", "q4f32_1"):
            assert refusal(kind, {**PARAMS, "scheme": SCHEMES[scheme].to_json()}, config, {}) is None


@pytest.mark.parametrize("tied", [True, False])
def test_what_tensors_decide_is_not_refused(tied: bool) -> None:
    """Which of head and embedding is stored, and which biases exist, is not in config.json."""
    config = {**CONFIGS["llama"], "tie_word_embeddings": tied, "attention_bias": True, "mlp_bias": True}
    for kind in ("config", "quantize"):
        assert refusal(kind, {**PARAMS, "scheme": SCHEMES["q4f32_1"].to_json()}, config, {}) is None


def test_a_model_type_that_is_none() -> None:
    error = refusal("config", {**PARAMS, "model-type": "lama"}, CONFIGS["llama"], {})
    assert error is not None and "did you mean 'llama'?" in str(error)


def test_places() -> None:
    def name(file: str) -> str:
        return f"mine/{file}"

    assert placed(InputError("bad"), name).where == "mine/config.json"
    assert placed(InputError("bad", where="quant_config.json: a: b"), name).where == "mine/quant_config.json: a: b"
    both = placed(MultiError([InputError("bad"), InputError("worse", where="config.json: a")]), name)
    assert str(both) == "mine/config.json: bad\nmine/config.json: a: worse"


@pytest.mark.parametrize(("place", "advises"), [("a/b.gguf", False), ("a/config.json", True)])
def test_a_gguf_files_keys_cannot_be_left_out(place: str, advises: bool) -> None:
    error = InputError(
        "there is no token 5", where="config.json: eos_token_id", fix='set ignore-keys = ["eos_token_id"]'
    )
    found = placed(error, lambda _: place)
    assert found.where == f"{place}: eos_token_id"
    assert ("ignore-keys" in (found.fix or "")) is advises
