"""Configurations of checkpoints that come with their own code, which is never run: what it says is data of the families."""

from __future__ import annotations

from typing import Any

import pytest

from llmbuild.errors import InputError
from llmbuild.models.family import Overrides
from llmbuild.models.registry import families, family, infer_model_type

SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 32,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "vocab_size": 60,
    "max_position_embeddings": 128,
    "auto_map": {"AutoConfig": "configuration_mine.Config", "AutoModelForCausalLM": "modeling_mine.Model"},
}
REMOTE = [name for item in families().values() for name, one in item.classes.items() if one.remote]


def configured(keys: dict[str, Any], **overrides: Any) -> tuple[Any, list[str]]:
    """The configuration by the family that is inferred, with the notes."""
    notes: list[str] = []
    config = SIZES | keys
    found = family(infer_model_type(config)).configure(config, Overrides(**overrides), note=notes.append)
    return found, notes


def refused(keys: dict[str, Any], **overrides: Any) -> InputError:
    with pytest.raises(InputError) as error:
        configured(keys, **overrides)
    return error.value


@pytest.mark.parametrize("model_type", REMOTE)
def test_transformers_has_no_class_of_what_is_called_remote(model_type: str) -> None:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    assert model_type not in CONFIG_MAPPING_NAMES


@pytest.mark.parametrize("model_type", REMOTE)
def test_another_architecture_does_not_take_a_checkpoint_of_such_a_family(model_type: str) -> None:
    error = refused({"model_type": model_type, "architectures": ["LlamaForCausalLM"]})
    assert error.where == "config.json: model_type"
    assert error.why == 'the checkpoint\'s own code goes by model_type; architectures says ["LlamaForCausalLM"]'


def test_internlm_has_its_rope_in_a_key_of_its_own() -> None:
    plain, _ = configured({"model_type": "internlm", "rotary": {"base": 500, "type": "origin"}})
    assert (plain.position_embedding_base, plain.rope_scaling) == (500, None)
    keys = {"model_type": "internlm", "rope_theta": 7.0}
    dynamic, notes = configured(keys, context_window_size=512)
    assert dynamic.position_embedding_base == 10000
    assert (
        notes[0]
        == "config.json: rope_theta = 7.0 is not read, as InternLMConfig of the checkpoint's own code does not read it"
    )
    # The base grows by the length beyond the one of training, whose factor is 1.
    frequencies = family("internlm").decoder(dynamic).ropes[0].frequencies
    assert frequencies[1] == pytest.approx((10000 * (512 / 128) ** (16 / 14)) ** (-2 / 16))


@pytest.mark.parametrize("rotary", ["dynamic", {"base": 10000}, {"base": 10000, "type": "yarn"}])
def test_an_unknown_rope_of_internlm_is_refused(rotary: Any) -> None:
    assert refused({"model_type": "internlm", "rotary": rotary}).where == "config.json: rotary"


def test_a_rope_that_the_code_of_a_checkpoint_does_not_know_is_refused() -> None:
    scaling = {"rope_type": "yarn", "factor": 2.0}
    error = refused({"model_type": "internlm2", "rope_scaling": scaling})
    assert error.why == "InternLM2Config of the checkpoint's own code takes default, linear, dynamic"


def test_the_count_of_key_value_heads_of_a_class_without_is_a_note() -> None:
    _, notes = configured({"model_type": "internlm", "num_key_value_heads": 2})
    assert "num_key_value_heads = 2 is not read, as InternLMConfig of the checkpoint's own code has none" in notes[0]
