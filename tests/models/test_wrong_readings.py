"""Configurations that were once built into another model than transformers makes of them, each with what is right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmbuild.errors import InputError
from llmbuild.models.family import Overrides
from llmbuild.models.registry import families, family, infer_model_type
from tests.helpers.config_oracle import KNOWN, differences, read_by_llmbuild, read_by_transformers

SMALL: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 32,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "num_hidden_layers": 2,
    "vocab_size": 60,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
GROWING = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, "llama_4_scaling_beta": 0.3}
LONGROPE = {"short_factor": [1.0] * 7 + [1.5], "long_factor": [1.0] * 7 + [9.0]}
LLAMA_LIKE = ("llama", "mistral", "qwen2", "qwen3")


def small(model_type: str) -> dict[str, Any]:
    """With what a class needs of which a default is another: a head's size, no window, attention in all layers."""
    own: dict[str, dict[str, Any]] = {
        "helium": {"head_dim": 16},
        "exaone4": {"sliding_window": None},
        "granitemoehybrid": {
            "layer_types": ["attention"] * 2,
            "num_local_experts": 0,
            "position_embedding_type": "rope",
            "shared_intermediate_size": 96,
        },
    }
    return SMALL | {"model_type": model_type} | own.get(model_type, {})


def configured(model_type: str, keys: dict[str, Any], ignore: tuple[str, ...] = ()) -> tuple[Any, list[str]]:
    """The configuration, by the family that is inferred, and the notes."""
    config = small(model_type) | keys
    notes: list[str] = []
    name = infer_model_type(config)
    return family(name).configure(config, Overrides(), ignore=ignore, note=notes.append), notes


def read_right(model_type: str, keys: dict[str, Any], directory: Path) -> list[str]:
    """The notes of a configuration that is read as transformers reads it."""
    config, notes = configured(model_type, keys)
    oracle = read_by_transformers(small(model_type) | keys, directory)
    assert not differences(read_by_llmbuild(families()[model_type], config), oracle)
    return notes


def refused(model_type: str, keys: dict[str, Any], family_name: str | None = None) -> InputError:
    config = small(model_type) | keys
    with pytest.raises(InputError) as error:
        family(family_name or infer_model_type(config)).configure(config, Overrides())
    assert error.value.why is not None
    assert error.value.fix is not None
    return error.value


@pytest.mark.parametrize("model_type", families())
@pytest.mark.parametrize("value", [False, None])
def test_a_model_that_is_not_causal_is_refused(model_type: str, value: Any) -> None:
    error = refused(model_type, {"is_causal": value})
    assert error.where == "config.json: is_causal"
    assert 'ignore-keys = ["is_causal"]' in str(error)


@pytest.mark.parametrize(
    ("architecture", "model_type", "keys"),
    [
        ("LlamaForCausalLM", "mistral", {"sliding_window": 8}),
        ("LlamaForCausalLM", "mistral", {"sliding_window": None}),
        ("LlamaForCausalLM", "granite", {"embedding_multiplier": 12.0, "attention_multiplier": 0.1}),
        ("LlamaForCausalLM", "helium", {}),
        ("Qwen2ForCausalLM", "qwen3", {}),
        ("GPTNeoXForCausalLM", "gptj", {}),
    ],
)
def test_two_known_families_are_refused(architecture: str, model_type: str, keys: dict[str, Any]) -> None:
    error = refused(model_type, keys | {"architectures": [architecture]})
    assert error.where == "config.json: model_type"
    assert f"'{model_type}'" in str(error)
    assert architecture in str(error)


def test_architectures_of_two_families_are_refused() -> None:
    with pytest.raises(InputError, match="two families"):
        infer_model_type({"architectures": ["LlamaForCausalLM", "Qwen2ForCausalLM"]})


@pytest.mark.parametrize("model_type", ["granite", "smollm3", "helium", "mistral", "qwen3", "gemma2", "internlm2"])
def test_a_model_type_by_hand_does_not_make_another_family_of_a_checkpoint(model_type: str) -> None:
    error = refused(model_type, {}, family_name="llama")
    assert error.where == "config.json: model_type"


def test_who_takes_responsibility_for_the_type_still_answers_for_each_key() -> None:
    config = SMALL | {"model_type": "granite", "logits_scaling": 8.0}
    with pytest.raises(InputError) as error:
        family("llama").configure(config, Overrides(), ignore=("model_type",))
    assert error.value.where == "config.json: logits_scaling"
    assert "granite" in str(error.value)
    family("llama").configure(config, Overrides(), ignore=("model_type", "logits_scaling"))


def test_a_type_that_transformers_does_not_know_may_have_no_key_of_unknown_meaning() -> None:
    configured("mine", {"architectures": ["LlamaForCausalLM"], "embedding_multiplier": 1.0})
    error = refused("mine", {"architectures": ["LlamaForCausalLM"], "embedding_multiplier": 2.0})
    assert "'mine' is not known" in str(error)


@pytest.mark.parametrize("model_type", ["llama", "gpt_neox"])
def test_llama3_with_its_two_factors_the_other_way_round(model_type: str, tmp_path: Path) -> None:
    scaling = {**LLAMA3, "low_freq_factor": 4.0, "high_freq_factor": 1.0, "original_max_position_embeddings": 64}
    read_right(model_type, {"rope_scaling": scaling}, tmp_path)


@pytest.mark.parametrize("model_type", LLAMA_LIKE)
@pytest.mark.parametrize("kind", ["default", "llama3"])
@pytest.mark.parametrize("beside", [None, 1e6])
def test_a_base_within_rope_scaling_counts(model_type: str, kind: str, beside: float | None, tmp_path: Path) -> None:
    scaling = (LLAMA3 if kind == "llama3" else {"rope_type": kind}) | {"rope_theta": 5e5}
    keys: dict[str, Any] = {"rope_scaling": scaling, "sliding_window": None}
    notes = read_right(model_type, keys | ({} if beside is None else {"rope_theta": beside}), tmp_path)
    lost = "config.json: rope_scaling.rope_theta = 500000.0 counts, and rope_theta = 1000000.0 does not, as in transformers"
    assert (lost in notes) == (beside is not None)


@pytest.mark.parametrize(
    ("model_type", "keys", "lost"),
    [
        (
            "llama",
            {
                "rope_scaling": {**LLAMA3, "original_max_position_embeddings": 64},
                "original_max_position_embeddings": 32,
            },
            "original_max_position_embeddings = 32 counts, and the 64",
        ),
        (
            "llama",
            {"rope_scaling": LLAMA3, "rope_parameters": {"rope_type": "default", "rope_theta": 5e5}},
            "rope_parameters = ",
        ),
        ("llama", {"rope_scaling": {**LLAMA3, "type": "linear"}}, 'rope_scaling.type = "linear" does not'),
        ("llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor = 0.5 is not read"),
        ("llama", {"rotary_emb_base": 500}, "rotary_emb_base = 500 is not read"),
        ("llama", {"n_embd": 48}, "n_embd = 48 is not read, and hidden_size = 64 counts"),
        ("llama", {"activation_function": "gelu"}, 'activation_function = "gelu" is not read'),
        (
            "llama",
            {"logits_scaling": 8.0},
            "logits_scaling = 8.0 is not read, as transformers does not read it of a llama",
        ),
        ("mistral", {"sliding_window": 8, "sliding_window_size": 16}, "sliding_window_size = 16 is not read"),
        ("llama", {"max_sequence_length": 2048}, "max_sequence_length = 2048 is not read"),
        (
            "gpt_neox",
            {"rotary_pct": 1.0, "rope_parameters": {"rope_theta": 300, "partial_rotary_factor": 0.5}},
            "rotary_pct = 1.0 does not",
        ),
        ("gpt_neox", {"num_key_value_heads": 2}, "num_key_value_heads = 2 is not read, as GPTNeoXConfig"),
        ("gpt_neox", {"num_key_value_heads": 3}, "num_key_value_heads = 3 is not read, as GPTNeoXConfig"),
        ("gpt_neox", {"rope_theta": 5e5}, "rope_theta = 500000.0 is not read"),
        ("gpt_neox", {"partial_rotary_factor": 1.0}, "partial_rotary_factor = 1.0 is not read"),
        ("mistral", {"layer_types": ["full_attention"] * 2, "sliding_window": 8, "head_dim": 16}, "sliding_window = 8"),
    ],
)
def test_the_value_that_loses_is_named(model_type: str, keys: dict[str, Any], lost: str, tmp_path: Path) -> None:
    assert any(lost in note for note in read_right(model_type, keys, tmp_path))


BY_LAYER = [name for name, one in families().items() if one.classes[name].ropes_by_layer]


@pytest.mark.parametrize("value", [False, [], 0, "", {}])
@pytest.mark.parametrize("model_type", [name for name in KNOWN if name not in BY_LAYER])
def test_what_is_false_is_no_scaling(model_type: str, value: Any, tmp_path: Path) -> None:
    assert read_right(model_type, {"rope_scaling": value}, tmp_path) == read_right(model_type, {}, tmp_path)
    own = {"phi3": {"rope_type": "longrope", **LONGROPE}, "ministral3": GROWING}
    scaling = own.get(model_type, LLAMA3)
    beside = {"rope_scaling": value, "rope_parameters": {**scaling, "rope_theta": 5e5}}
    config, _ = configured(model_type, beside)
    assert read_by_llmbuild(families()[model_type], config) == read_by_llmbuild(
        families()[model_type], configured(model_type, {"rope_scaling": beside["rope_parameters"]})[0]
    )


@pytest.mark.parametrize("model_type", BY_LAYER)
def test_scaling_beside_rope_by_type_of_layer_is_an_object(model_type: str, tmp_path: Path) -> None:
    """transformers updates the layers that see all by it, which an empty one does not change."""
    kinds = {"rope_parameters": {"full_attention": {**LLAMA3, "rope_theta": 5e5}}}
    for value in (False, 0, [], ""):
        with pytest.raises(InputError, match="must be an object"):
            configured(model_type, kinds | {"rope_scaling": value})
    config, _ = configured(model_type, kinds | {"rope_scaling": {}})
    assert config == configured(model_type, kinds)[0]
    read_right(model_type, kinds | {"rope_scaling": {}}, tmp_path)
    read_right(model_type, {"rope_scaling": LLAMA3, "rope_local_base_freq": 700.0}, tmp_path)


@pytest.mark.parametrize("model_type", ["clip", "mine"])
def test_a_type_that_is_no_language_model_is_a_note(model_type: str, tmp_path: Path) -> None:
    """The class that architectures names reads such a config.json with a warning, as its own type's."""
    from transformers import LlamaConfig

    keys = {"architectures": ["LlamaForCausalLM"], "rope_theta": 7.0}
    config, notes = configured(model_type, keys)
    assert notes == [
        f"config.json: model_type '{model_type}' is no causal language model of transformers; "
        'architectures = ["LlamaForCausalLM"] counts'
    ]
    (tmp_path / "config.json").write_text(json.dumps(SMALL | keys | {"model_type": model_type}))
    LlamaConfig.from_pretrained(tmp_path).save_pretrained(tmp_path / "read")
    read = json.loads((tmp_path / "read/config.json").read_text())
    assert read["model_type"] == "llama"
    assert configured("llama", read)[0] == config


def test_values_of_which_transformers_knows_no_winner_are_refused_by_both_names() -> None:
    error = refused("llama", {"rope_theta": 7, "position_embedding_base": 9})
    assert {"position_embedding_base", "RoPE"} <= set(str(error).replace(":", " ").split())
    assert " 9," in str(error)
    assert " 7" in str(error)


def test_rope_by_type_of_layer_is_refused() -> None:
    error = refused("llama", {"rope_parameters": {"full_attention": {"rope_theta": 5e5, "rope_type": "default"}}})
    assert error.where == "config.json: rope_parameters.full_attention"


@pytest.mark.parametrize("model_type", ["qwen2", "qwen3"])
def test_layers_beyond_the_default_of_max_window_layers_slide(model_type: str, tmp_path: Path) -> None:
    keys = {"use_sliding_window": True, "sliding_window": 32}
    read_right(model_type, keys, tmp_path)
    read_right(model_type, keys | {"num_hidden_layers": 30}, tmp_path)
    config, _ = configured(model_type, keys | {"num_hidden_layers": 30})
    assert config.layer_types == ("full_attention",) * 28 + ("sliding_attention",) * 2


@pytest.mark.parametrize("model_type", ["qwen2", "qwen3"])
@pytest.mark.parametrize(
    "keys",
    [
        {"use_sliding_window": True, "sliding_window": None, "max_window_layers": 0},
        {"use_sliding_window": True, "max_window_layers": 0, "layer_types": ["full_attention"] * 2},
        {"use_sliding_window": True, "max_window_layers": 2},
        {"hidden_act": "gelu_pytorch_tanh"},
        {"hidden_act": "gelu_fast"},
        {"head_dim": 32},
        {"rope_scaling": LLAMA3},
    ],
)
def test_what_qwen_was_refused_for_is_taken(model_type: str, keys: dict[str, Any], tmp_path: Path) -> None:
    assert read_right(model_type, keys, tmp_path) == []


@pytest.mark.parametrize(
    ("model_type", "keys"),
    [
        ("llama", {"rope_scaling": {"type": "linear", "factor": 1.0}}),
        ("llama", {"hidden_act": "gelu"}),
        ("llama", {"hidden_act": "relu"}),
        ("llama", {"rope_scaling": LLAMA3}),
        ("mistral", {"hidden_act": "gelu_new", "sliding_window": None}),
        ("mistral", {"rope_scaling": LLAMA3, "sliding_window": None}),
        ("gpt_neox", {"hidden_act": "relu"}),
        ("gpt_neox", {"hidden_act": "silu"}),
        ("gpt_neox", {"rope_scaling": LLAMA3, "rotary_pct": 0.5}),
    ],
)
def test_what_other_families_were_refused_for_is_taken(model_type: str, keys: dict[str, Any], tmp_path: Path) -> None:
    assert read_right(model_type, keys, tmp_path) == []


def test_a_window_that_is_left_out_is_the_default_of_mistral() -> None:
    config, notes = configured("mistral", {})
    assert (config.sliding_window, notes) == (4096, [])


def test_a_rolling_cache_differs_from_transformers_with_a_note() -> None:
    notes: list[str] = []
    keys = SMALL | {"model_type": "mistral", "sliding_window": 32}
    family("mistral").configure(keys, Overrides(sliding_window_size=32), note=notes.append)
    assert any("longer than the sliding window of 32 tokens" in note for note in notes)


def test_a_negative_window_is_not_none_of_mistral() -> None:
    """transformers masks everything with it; it is not its way to say that there is none."""
    assert refused("mistral", {"sliding_window": -1}).where == "config.json: sliding_window"


def test_layers_of_several_kinds_are_read_for_mistral(tmp_path: Path) -> None:
    keys = {"layer_types": ["full_attention", "sliding_attention"], "sliding_window": 8, "head_dim": 16}
    read_right("mistral", keys, tmp_path)


@pytest.mark.parametrize("model_type", ["mistral", "qwen2"])
def test_layers_with_a_window_that_is_nowhere_are_refused(model_type: str) -> None:
    error = refused(model_type, {"layer_types": ["sliding_attention"] * 2, "sliding_window": None})
    assert error.where == "config.json: layer_types"


@pytest.mark.parametrize(
    ("context", "pair", "noted"), [(64, (32, -1), True), (32, (-1, 32), False), (16, (-1, 16), False)]
)
def test_web_llm_takes_the_windows(context: int, pair: tuple[int, int], noted: bool) -> None:
    """WebLLM 0.2.86 takes one of the two windows, and throws where both are positive or none is."""
    notes: list[str] = []
    keys = SMALL | {"model_type": "mistral", "sliding_window": 32}
    asked = Overrides(context_window_size=context, sliding_window_size=32)
    config = family("mistral").configure(keys, asked, note=notes.append)
    assert (config.sliding_window_size, config.context_window_size) == pair
    assert any(f"context window of {context} tokens is not kept" in note for note in notes) == noted


@pytest.mark.parametrize("model_type", ["llama", "gpt_neox"])
@pytest.mark.parametrize(
    "keys", [{"sliding_window": 8}, {"layer_types": ["sliding_attention"] * 2}, {"attention_chunk_size": 8}]
)
def test_windows_that_only_the_cache_of_transformers_has_are_refused(model_type: str, keys: dict[str, Any]) -> None:
    assert refused(model_type, keys).where == f"config.json: {next(iter(keys))}"


@pytest.mark.parametrize(
    "key", ["hidden_size", "intermediate_size", "num_attention_heads", "num_hidden_layers", "vocab_size"]
)
@pytest.mark.parametrize("model_type", KNOWN)
def test_a_size_that_tensors_show_must_be_there(model_type: str, key: str) -> None:
    if model_type == "gemma3_text" and key in ("num_attention_heads", "vocab_size"):
        pytest.skip("published files leave it out")
    config = {name: value for name, value in SMALL.items() if name != key} | {"model_type": model_type}
    with pytest.raises(InputError, match="is missing") as error:
        family(model_type).configure(config, Overrides())
    assert error.value.where == f"config.json: {key}"


@pytest.mark.parametrize(
    ("model_type", "key"),
    [("llama", "tie_word_embeddings"), ("qwen2", "use_sliding_window"), ("gpt_neox", "use_parallel_residual")],
)
def test_a_number_is_no_flag(model_type: str, key: str) -> None:
    with pytest.raises(InputError, match=f"config.json: {key}: must be true or false, not 0"):
        configured(model_type, {key: 0})


def test_a_window_as_long_as_the_context_is_a_note() -> None:
    _, notes = configured("llama", {"sliding_window": 256})
    assert notes == [
        "config.json: sliding_window = 256 is not read, as no text within max_position_embeddings fills it"
    ]


def test_a_missing_size_under_another_familys_name_is_told() -> None:
    config = {name: value for name, value in SMALL.items() if name != "hidden_size"} | {"n_embd": 48}
    with pytest.raises(InputError) as error:
        family("llama").configure(config, Overrides())
    assert error.value.fix == "rename n_embd to hidden_size"


@pytest.mark.parametrize(("model_type", "name"), [("internlm3", "qkv_bias"), ("iquestcoder", "attention_bias")])
def test_families_with_the_maths_of_llama_keep_their_own_defaults(model_type: str, name: str, tmp_path: Path) -> None:
    keys = {key: value for key, value in SMALL.items() if key not in ("max_position_embeddings", "num_key_value_heads")}
    keys |= {"model_type": model_type, "hidden_size": 40 * 4, name: True}
    keys |= {"bias": True} if model_type == "internlm3" else {}
    keys |= {"num_attention_heads": 8}
    config = family(infer_model_type(keys)).configure(keys, Overrides())
    assert not differences(read_by_llmbuild(families()["llama"], config), read_by_transformers(keys, tmp_path))


@pytest.mark.parametrize(
    ("model_type", "keys", "place", "says"),
    [
        ("llama", {"max_position_embeddings": 0}, "max_position_embeddings", "is 0, with which no model computes"),
        ("llama", {"layer_types": "full_attention"}, "layer_types", "must be a list of names"),
        ("llama", {"layer_types": ["full_attention"]}, "layer_types", "has 1 entries for 2 layers"),
        ("gpt_neox", {"head_dim": 8}, "num_attention_heads", "4 heads of 8 do not make the hidden size 64"),
        ("llama", {"rope_scaling": True}, "rope_scaling", "must be an object, not true"),
        (
            "llama",
            {"rope_scaling": {**LLAMA3, "partial_rotary_factor": 0.5}},
            "rope_scaling.partial_rotary_factor",
            "is 0.5, but heads are rotated whole",
        ),
        (
            "llama",
            {"rope_scaling": LLAMA3, "original_max_position_embeddings": None},
            "original_max_position_embeddings",
            "is null, which transformers cannot compute with",
        ),
        (
            "llama",
            {"rope_scaling": {**LLAMA3, "original_max_position_embeddings": None}},
            "rope_scaling.original_max_position_embeddings",
            "is null, which transformers does not take",
        ),
        (
            "mine",
            {"architectures": ["LlamaForCausalLM"], "n_embd": 48},
            "hidden_size",
            "which of the two counts for model_type 'mine' is not known",
        ),
        ("llama", {"rope_scaling": [1]}, "rope_scaling", "must be an object, not [1]"),
        ("llama", {"rope_parameters": False}, "rope_parameters", "must be an object, not false"),
    ],
)
def test_a_value_that_cannot_be_meant_is_refused_by_its_key(
    model_type: str, keys: dict[str, Any], place: str, says: str
) -> None:
    with pytest.raises(InputError) as error:
        configured(model_type, keys)
    assert error.value.where == f"config.json: {place}"
    assert says in str(error.value)


@pytest.mark.parametrize("kind", ["su", "yarn", "longrope"])
def test_each_name_that_phi3_has_for_longrope_is_read(kind: str, tmp_path: Path) -> None:
    scaling = {"type": kind, "original_max_position_embeddings": 2048, **LONGROPE}
    keys = {"max_position_embeddings": 8192, "original_max_position_embeddings": 2048, "rope_scaling": scaling}
    notes = read_right("phi3", keys, tmp_path)
    assert any("more than 2048 tokens" in note for note in notes)


def test_a_head_with_a_bias_is_not_tied() -> None:
    assert refused("phi", {"tie_word_embeddings": True}).where == "config.json: tie_word_embeddings"


def test_the_original_length_of_phi3_has_a_default(tmp_path: Path) -> None:
    scaling = {"type": "longrope", **LONGROPE}
    notes = read_right("phi3", {"max_position_embeddings": 8192, "rope_scaling": scaling}, tmp_path)
    assert any("more than 4096 tokens" in note for note in notes)


@pytest.mark.parametrize("parameters", [{"rope_type": "llama3", **LLAMA3}, LONGROPE])
def test_a_type_that_phi3_does_not_have_is_refused(parameters: dict[str, Any]) -> None:
    assert str(refused("phi3", {"rope_scaling": parameters}).where).startswith("config.json: rope_scaling.")


@pytest.mark.parametrize(
    ("keys", "place", "says"),
    [
        ({"layer_types": ["mamba", "attention"]}, "layer_types", 'is ["mamba", "attention"], which is not supported'),
        ({"num_local_experts": 64}, "num_local_experts", "is 64, which is not supported"),
        ({"position_embedding_type": "nope"}, "position_embedding_type", 'is "nope", which is not supported'),
    ],
)
def test_a_granite_of_the_hybrid_class_is_taken_where_it_is_dense(keys: dict[str, Any], place: str, says: str) -> None:
    config, _ = configured("granitemoehybrid", {"layer_types": None, "layers_block_type": ["attention"] * 2})
    assert config.intermediate_size == 96
    error = refused("granitemoehybrid", keys)
    assert (error.where, error.what.startswith(says)) == (f"config.json: {place}", True)


def test_a_period_of_no_layers_is_taken_where_nothing_goes_by_it() -> None:
    named = {"sliding_window": 8, "sliding_window_pattern": 0, "layer_types": ["sliding_attention", "full_attention"]}
    assert configured("exaone4", named)[0].layer_types == ("sliding_attention", "full_attention")
    assert configured("exaone4", {"sliding_window_pattern": 0})[0].sliding_window is None
    with pytest.raises(InputError, match="sliding_window_pattern: is 0, which is not between 1"):
        configured("exaone4", {"sliding_window": 8, "sliding_window_pattern": 0})
