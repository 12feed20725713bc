"""Families whose positions have learned embeddings, and names of their own for keys of config.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmbuild.errors import InputError
from llmbuild.models.family import ModelConfig, Overrides
from llmbuild.models.registry import family, infer_model_type
from tests.helpers.variants import variants

GPT2: dict[str, Any] = {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 96, "vocab_size": 160}


def configured(keys: dict[str, Any], model_type: str = "gpt2", **overrides: Any) -> tuple[ModelConfig, list[str]]:
    notes: list[str] = []
    return family(model_type).configure(keys, Overrides(**overrides), note=notes.append), notes


def positions(config: ModelConfig) -> tuple[int, ...]:
    shapes = {one.name: one.shape for one in family("gpt2").parameters(config)}
    return shapes["transformer.wpe.weight"]


def test_the_configuration_is_written_in_the_names_and_the_order_of_mlc() -> None:
    config, _ = configured({**GPT2, "model_type": "gpt2"})
    assert config.to_json() == {
        "vocab_size": 160,
        "n_embd": 64,
        "n_layer": 2,
        "n_head": 4,
        "layer_norm_epsilon": 1e-5,
        "n_inner": 256,
        "context_window_size": 96,
        "prefill_chunk_size": 96,
        "scale_attn_by_inverse_layer_idx": False,
        "tensor_parallel_shards": 1,
        "head_dim": 16,
        "max_batch_size": 128,
    }
    assert list(config.to_json())[:4] == ["vocab_size", "n_embd", "n_layer", "n_head"]


def test_a_smaller_context_keeps_all_positions() -> None:
    config, _ = configured(GPT2, context_window_size=32)
    assert (config.context_window_size, config.prefill_chunk_size) == (32, 32)
    assert positions(config) == (96, 64)
    again = family("gpt2").restore(config.to_json(), Overrides())
    assert again == config
    assert config.to_json()["n_positions"] == 96


def test_the_context_of_mlc_is_its_number_of_positions() -> None:
    written = configured(GPT2)[0].to_json()
    assert "n_positions" not in written
    smaller = family("gpt2").restore(written, Overrides(context_window_size=16))
    assert (smaller.context_window_size, positions(smaller)) == (16, (96, 64))


def test_a_context_beyond_the_positions_is_refused() -> None:
    with pytest.raises(InputError, match="is 97, and the model has 96 positions") as error:
        configured(GPT2, context_window_size=97)
    assert error.value.where == "config.json: context_window_size"
    assert error.value.fix == "set context-window-size to 96 or less"


def test_keys_of_the_family_win_over_those_of_others() -> None:
    keys = {"intermediate_size": 7, "layer_norm_eps": 0.1, "rope_theta": 5.0, "hidden_size": 32}
    config, notes = configured({**GPT2, **keys})
    # The class takes hidden_size for n_embd.
    assert (config.hidden_size, config.intermediate_size, config.layer_norm_eps) == (32, 128, 1e-5)
    for name in ("intermediate_size = 7", "layer_norm_eps = 0.1", "rope_theta = 5.0"):
        assert f"config.json: {name} is not read, as GPT2Config of transformers does not read it" in notes
    assert any("hidden_size = 32 counts, and n_embd = 64 does not" in note for note in notes)


@pytest.mark.parametrize(
    ("keys", "where"),
    [({"n_embd": "x"}, "n_embd"), ({"n_head": 3}, "n_embd"), ({"activation_function": "mish"}, "activation_function")],
)
def test_errors_name_the_keys_of_the_family(keys: dict[str, Any], where: str) -> None:
    with pytest.raises(InputError) as error:
        configured({**GPT2, **keys})
    assert error.value.where == f"config.json: {where}"


def test_a_missing_size_is_asked_for_under_the_name_of_the_family() -> None:
    with pytest.raises(InputError, match="is missing: a gpt2 configuration needs 'n_embd'"):
        configured({key: value for key, value in GPT2.items() if key != "n_embd"})
    with pytest.raises(InputError) as error:
        configured({"d_model": 64, **{key: value for key, value in GPT2.items() if key != "n_embd"}})
    assert error.value.fix == "rename d_model to n_embd"


@pytest.mark.parametrize("model_type", ["gpt2", "gpt_bigcode", "gptj"])
@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"hidden_size": 32},
        {"max_position_embeddings": 48, "num_attention_heads": 2},
        {"n_inner": 48, "intermediate_size": 80},
        {"n_inner": None, "layer_norm_epsilon": 0.25, "layer_norm_eps": 0.5},
        {"activation_function": "relu", "hidden_act": "silu", "num_key_value_heads": 2},
    ],
)
def test_the_keys_count_that_count_in_transformers(model_type: str, keys: dict[str, Any], tmp_path: Path) -> None:
    from transformers import AutoConfig

    content = {**GPT2, "rotary_dim": 8, "model_type": model_type, **keys}
    (tmp_path / "config.json").write_text(json.dumps(content))
    theirs = AutoConfig.from_pretrained(tmp_path)
    ours, _ = configured(content, model_type)
    assert (ours.hidden_size, ours.num_attention_heads, ours.context_window_size) == (
        theirs.n_embd,
        theirs.n_head,
        theirs.n_positions,
    )
    assert ours.intermediate_size == (theirs.n_inner or 4 * theirs.n_embd)
    assert (ours.layer_norm_eps, ours.hidden_act) == (theirs.layer_norm_epsilon, theirs.activation_function)
    assert ours.tie_word_embeddings == theirs.tie_word_embeddings


FIELDS = {
    "gpt_bigcode/StarCoder": "n_embd n_inner n_head n_layer n_positions layer_norm_epsilon vocab_size context_window_size "
    "prefill_chunk_size tensor_parallel_shards max_batch_size",
    "gptj/GPT-J": "vocab_size n_embd n_layer n_head layer_norm_epsilon rotary_dim activation_function n_inner rope_scaling "
    "context_window_size prefill_chunk_size tensor_parallel_shards max_batch_size head_dim",
    "phi_msft/Phi-2": "model_type vocab_size n_positions n_embd n_layer n_inner n_head rotary_dim position_embedding_base "
    "layer_norm_epsilon context_window_size prefill_chunk_size n_head_kv head_dim tensor_parallel_shards",
}


@pytest.mark.parametrize("name", FIELDS)
def test_the_fields_are_those_of_mlc(name: str) -> None:
    config, notes = configured(dict(variants()[name]), infer_model_type(variants()[name]))
    assert list(config.to_json()) == FIELDS[name].split()
    assert notes == []


@pytest.mark.parametrize(
    ("model_type", "wanted"), [("phi", "phi"), ("phi-msft", "phi-msft"), (None, "phi"), ("mine", "phi")]
)
def test_of_two_families_with_classes_of_one_name_the_model_type_decides(model_type: str | None, wanted: str) -> None:
    assert infer_model_type({"architectures": ["PhiForCausalLM"], "model_type": model_type}) == wanted


@pytest.mark.parametrize("size", [7, 20])
def test_a_part_of_a_head_that_cannot_turn_is_refused(size: int) -> None:
    with pytest.raises(InputError, match=f"is {size}, which is no even part of the head size 16") as error:
        configured({**GPT2, "rotary_dim": size}, "gptj")
    assert error.value.where == "config.json: rotary_dim"
