"""Configurations of the families: MLC's fields and derivations, both spellings of RoPE, overrides, errors."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from llmbuild.errors import InputError
from llmbuild.models.family import Overrides
from llmbuild.models.registry import family, infer_model_type
from llmbuild.models.spec import TemperatureSpec

LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 172,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "rms_norm_eps": 1e-5,
    "vocab_size": 320,
    "max_position_embeddings": 256,
    "num_key_value_heads": 2,
}
NEOX: dict[str, Any] = {
    "model_type": "gpt_neox",
    "hidden_size": 64,
    "intermediate_size": 256,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "vocab_size": 320,
    "max_position_embeddings": 256,
}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}

YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
LONGROPE = {
    "rope_type": "longrope",
    "factor": 4.0,
    "original_max_position_embeddings": 64,
    "short_factor": [1.0] * 8,
    "long_factor": [2.0] * 8,
}


def configure(model_type: str, source: dict[str, Any], **overrides: Any) -> Any:
    return family(model_type).configure(source, Overrides(**overrides))


def minimal(model_type: str) -> dict[str, Any]:
    return dict(NEOX if model_type == "gpt_neox" else LLAMA, model_type=model_type, architectures=None)


# The field names and their order, as MLC's configuration classes have them, of the families that MLC has.
FIELDS = {
    "gemma": "hidden_size intermediate_size attention_bias num_attention_heads num_key_value_heads head_dim "
    "num_hidden_layers rms_norm_eps vocab_size hidden_activation position_embedding_base context_window_size "
    "prefill_chunk_size tensor_parallel_shards max_batch_size",
    "gemma3_text": "text_config vocab_size tensor_parallel_shards max_batch_size context_window_size prefill_chunk_size "
    "is_text_model",
    "ministral3": "hidden_size intermediate_size num_attention_heads num_hidden_layers rms_norm_eps vocab_size "
    "attention_sink_size context_window_size dtype head_dim hidden_act max_batch_size num_key_value_heads "
    "position_embedding_base prefill_chunk_size rope_parameters sliding_window_size tensor_parallel_shards "
    "tie_word_embeddings weight_block_size modules_to_not_convert",
    "llama": "hidden_size intermediate_size num_attention_heads num_hidden_layers rms_norm_eps vocab_size "
    "tie_word_embeddings position_embedding_base rope_scaling context_window_size prefill_chunk_size "
    "num_key_value_heads head_dim tensor_parallel_shards pipeline_parallel_stages max_batch_size disaggregation",
    "mistral": "hidden_size intermediate_size num_attention_heads num_hidden_layers rms_norm_eps vocab_size "
    "position_embedding_base num_key_value_heads head_dim context_window_size sliding_window_size "
    "prefill_chunk_size attention_sink_size tensor_parallel_shards max_batch_size sliding_window",
    "gpt_neox": "use_parallel_residual hidden_size intermediate_size num_attention_heads num_hidden_layers "
    "layer_norm_eps vocab_size rotary_pct position_embedding_base context_window_size head_dim "
    "prefill_chunk_size tensor_parallel_shards ffn_out_dtype max_batch_size",
    "qwen2": "hidden_act hidden_size intermediate_size num_attention_heads num_hidden_layers num_key_value_heads "
    "rms_norm_eps rope_theta vocab_size tie_word_embeddings context_window_size prefill_chunk_size "
    "tensor_parallel_shards head_dim dtype max_batch_size",
    "qwen3": "hidden_act hidden_size intermediate_size attention_bias num_attention_heads num_hidden_layers "
    "num_key_value_heads rms_norm_eps rope_theta vocab_size tie_word_embeddings context_window_size "
    "prefill_chunk_size tensor_parallel_shards head_dim dtype max_batch_size weight_block_size",
    "phi": "vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads layer_norm_eps "
    "position_embedding_base partial_rotary_factor num_key_value_heads context_window_size prefill_chunk_size "
    "head_dim tensor_parallel_shards max_batch_size",
    "starcoder2": "vocab_size hidden_size num_hidden_layers num_attention_heads num_key_value_heads hidden_act "
    "norm_epsilon intermediate_size rope_theta use_bias use_cache bos_token_id eos_token_id context_window_size "
    "prefill_chunk_size tensor_parallel_shards max_batch_size head_dim",
    "stablelm": "vocab_size hidden_size num_hidden_layers num_attention_heads num_key_value_heads layer_norm_eps "
    "partial_rotary_factor rope_theta intermediate_size use_qkv_bias head_dim context_window_size "
    "prefill_chunk_size tensor_parallel_shards max_batch_size",
    "phi3": "model_type hidden_size vocab_size num_hidden_layers num_attention_heads intermediate_size rms_norm_eps "
    "num_key_value_heads max_position_embeddings position_embedding_base rope_scaling "
    "original_max_position_embeddings context_window_size prefill_chunk_size head_dim tensor_parallel_shards "
    "max_batch_size tie_word_embeddings partial_rotary_factor",
    "cohere": "hidden_size vocab_size num_hidden_layers num_attention_heads num_key_value_heads intermediate_size "
    "layer_norm_eps position_embedding_base context_window_size prefill_chunk_size head_dim tensor_parallel_shards "
    "max_batch_size",
    "nemotron": "vocab_size max_position_embeddings hidden_size intermediate_size num_hidden_layers num_attention_heads "
    "num_key_value_heads rope_theta partial_rotary_factor rope_scaling norm_eps head_dim tie_word_embeddings mlp_bias "
    "context_window_size prefill_chunk_size tensor_parallel_shards pipeline_parallel_stages max_batch_size "
    "disaggregation",
    "olmo": "vocab_size hidden_size num_attention_heads num_key_value_heads head_dim position_embedding_base rope_scaling "
    "intermediate_size hidden_act num_hidden_layers tie_word_embeddings context_window_size prefill_chunk_size "
    "tensor_parallel_shards pipeline_parallel_stages max_batch_size clip_qkv",
    "olmo2": "vocab_size hidden_size num_attention_heads num_key_value_heads head_dim position_embedding_base rope_scaling "
    "intermediate_size hidden_act num_hidden_layers rms_norm_eps tie_word_embeddings context_window_size "
    "prefill_chunk_size tensor_parallel_shards pipeline_parallel_stages max_batch_size",
}


def case_name(value: Any) -> str:
    """A name of a parameter that no other case changes."""
    return re.sub(r"[^\w .=-]+", " ", value if isinstance(value, str) else json.dumps(value)).strip()


@pytest.mark.parametrize("model_type", FIELDS)
def test_model_config_has_mlcs_fields_and_reads_back_equal(model_type: str) -> None:
    config = configure(model_type, minimal(model_type))
    written = config.to_json()
    assert list(written) == FIELDS[model_type].split()
    assert family(model_type).restore(json.loads(json.dumps(written)), Overrides()) == config
    assert config.max_batch_size == 128
    assert config.tensor_parallel_shards == 1


def test_the_longrope_that_mlc_writes_reads_back() -> None:
    lists = {"short_factor": [1.0] * 8, "long_factor": [2.0] * 8}
    source = minimal("phi3") | {"original_max_position_embeddings": 64, "rope_scaling": {"type": "longrope", **lists}}
    config = configure("phi3", source)
    written = config.to_json()
    names = {"type": "longrope", "rope_type": "longrope", "max_position_embeddings": 256}
    written["rope_scaling"] = {**lists, **names, "original_max_position_embeddings": 64}
    assert family("phi3").restore(written, Overrides()) == config


def test_llama_derivations() -> None:
    config = configure("llama", LLAMA)
    assert (config.head_dim, config.num_key_value_heads, config.position_embedding_base) == (16, 2, 10000)
    assert (config.context_window_size, config.prefill_chunk_size) == (256, 256)
    assert (config.sliding_window_size, config.attention_sink_size) == (-1, -1)
    long = configure("llama", LLAMA | {"max_position_embeddings": 131072})
    assert long.prefill_chunk_size == 8192
    without_groups = {key: value for key, value in LLAMA.items() if key != "num_key_value_heads"}
    assert configure("llama", without_groups).num_key_value_heads == 4


@pytest.mark.parametrize(
    ("spelling", "theta", "scaling"),
    [
        ({}, 10000, None),
        ({"rope_theta": 5e5, "rope_scaling": LLAMA3}, 5e5, LLAMA3),
        ({"rope_theta": 5e5, "rope_scaling": {**LLAMA3, "type": "llama3"}}, 5e5, LLAMA3),
        ({"rope_parameters": {"rope_theta": 5e5, **LLAMA3}}, 5e5, LLAMA3),
        ({"rope_parameters": {"rope_theta": 100.0, "rope_type": "default"}}, 100.0, None),
        ({"rope_scaling": {"rope_type": "default"}, "rope_theta": 7.0}, 7.0, None),
        ({"rope_scaling": None, "rope_theta": 7}, 7, None),
        ({"position_embedding_base": 7, "rope_theta": 7}, 7, None),
        ({"rope_scaling": {"type": "linear", "factor": 1.0}}, 10000, None),
        ({"rope_scaling": {"type": "linear", "factor": 4.0}}, 10000, {"rope_type": "linear", "factor": 4.0}),
        ({"rope_scaling": {**YARN, "type": "yarn", "finetuned": True}}, 10000, YARN),
        ({"rope_parameters": {**YARN, "truncate": False, "rope_theta": 7.0}}, 7.0, {**YARN, "truncate": False}),
        (
            {"rope_scaling": {"type": "yarn", "factor": None}, "original_max_position_embeddings": 64},
            10000,
            YARN,
        ),
        ({"rope_scaling": {**LONGROPE, "factor": None}}, 10000, LONGROPE),
        (
            {"rope_scaling": {"type": "dynamic", "factor": 4.0}},
            10000,
            {"rope_type": "dynamic", "factor": 4.0, "original_max_position_embeddings": 256},
        ),
    ],
)
def test_rope_in_both_spellings(spelling: dict[str, Any], theta: float, scaling: Any) -> None:
    config = configure("llama", LLAMA | spelling)
    assert config.position_embedding_base == theta
    assert config.rope_scaling == scaling
    written = config.to_json()
    assert written["rope_scaling"] == scaling
    assert family("llama").restore(json.loads(json.dumps(written)), Overrides()) == config


@pytest.mark.parametrize(
    ("scaling", "context", "said"),
    [
        (LONGROPE, 64, "longrope is built for texts of at most 64 tokens"),
        (LONGROPE, 65, "longrope is built for texts of more than 64 tokens"),
        ({"rope_type": "dynamic", "factor": 4.0}, 256, "dynamic is built for texts of at most 256 tokens"),
        ({"rope_type": "dynamic", "factor": 4.0}, 300, "dynamic is built for a text of 300 tokens"),
    ],
)
def test_a_note_says_which_length_rope_is_for(scaling: dict[str, Any], context: int, said: str) -> None:
    notes: list[str] = []
    source = LLAMA | {"rope_scaling": scaling}
    config = family("llama").configure(source, Overrides(context_window_size=context), note=notes.append)
    assert [said in note for note in notes] == [True]
    llama = family("llama")
    plain = llama.decoder(llama.configure(LLAMA, Overrides())).ropes[0].frequencies
    changed = llama.decoder(config).ropes[0].frequencies != plain
    assert changed == (context in (65, 300))


def test_gpt_neox_rope_spellings() -> None:
    assert configure("gpt_neox", NEOX).rotary_pct == 0.25
    assert configure("gpt_neox", NEOX | {"rotary_pct": 0.5, "rotary_emb_base": 300}).position_embedding_base == 300
    newer = configure("gpt_neox", NEOX | {"rope_parameters": {"rope_theta": 5.0, "partial_rotary_factor": 0.5}})
    assert (newer.rotary_pct, newer.position_embedding_base) == (0.5, 5.0)


def test_windows_of_layers_and_a_rolling_cache_on_request() -> None:
    source = minimal("mistral") | {"sliding_window": 64}

    def sizes(**overrides: Any) -> tuple[Any, ...]:
        c = configure("mistral", source, **overrides)
        return (
            c.sliding_window,
            c.sliding_window_size,
            c.context_window_size,
            c.prefill_chunk_size,
            c.attention_sink_size,
        )

    assert sizes() == (64, -1, 256, 256, -1)
    assert sizes(sliding_window_size=32) == (None, 32, -1, 32, 4)
    assert sizes(sliding_window_size=32, attention_sink_size=0) == (None, 32, -1, 32, 0)
    assert sizes(sliding_window_size=-1) == (None, -1, 256, 256, 4)
    with pytest.raises(InputError, match="only a rolling cache keeps first tokens"):
        sizes(attention_sink_size=2)
    source |= {"max_position_embeddings": 32768}
    assert sizes()[2:4] == (8192, 8192)
    assert sizes(sliding_window_size=-1)[2] == 32768
    full = configure("mistral", minimal("mistral") | {"sliding_window": None})
    assert (full.sliding_window, full.sliding_window_size, full.context_window_size) == (None, -1, 256)


def test_a_rolling_cache_does_not_take_the_place_of_windows_that_some_layers_have() -> None:
    mixed = minimal("mistral") | {"sliding_window": 64, "layer_types": ["sliding_attention", "full_attention"]}
    assert configure("mistral", mixed).layer_types == ("sliding_attention", "full_attention")
    assert configure("mistral", mixed, sliding_window_size=-1).layer_types is None
    with pytest.raises(InputError, match="a rolling cache has one for all"):
        configure("mistral", mixed, sliding_window_size=64)


@pytest.mark.parametrize(
    ("change", "overrides", "says"),
    [
        ({"rope_scaling": YARN}, {}, "of type yarn does not work with a sliding window"),
        ({}, {"attention_sink_size": 32}, "is 32, which does not fit into the sliding window of 32"),
    ],
    ids=["yarn", "sinks"],
)
def test_what_a_rolling_cache_does_not_take(change: dict[str, Any], overrides: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        configure("mistral", minimal("mistral") | change, sliding_window_size=32, **overrides)


def test_mlcs_own_configuration_with_a_window_is_that_of_a_rolling_cache() -> None:
    written = configure("mistral", minimal("mistral") | {"sliding_window": 64}, sliding_window_size=64).to_json()
    assert "sliding_window" not in written
    again = family("mistral").restore(written, Overrides())
    assert (again.sliding_window_size, again.context_window_size, again.attention_sink_size) == (64, -1, 4)


def test_overrides_replace_and_derive_again() -> None:
    config = configure("llama", LLAMA, context_window_size=128, max_batch_size=3, disaggregation=True)
    assert (config.context_window_size, config.prefill_chunk_size, config.max_batch_size) == (128, 128, 3)
    assert config.disaggregation is True
    assert configure("llama", LLAMA, prefill_chunk_size=32).prefill_chunk_size == 32
    assert configure("llama", LLAMA, prefill_chunk_size=999).prefill_chunk_size == 256
    assert configure("qwen3", minimal("qwen3") | {"max_position_embeddings": 9999}).prefill_chunk_size == 2048


def test_an_override_that_a_family_lacks_is_an_error_unless_it_says_what_is_already_so() -> None:
    configure("qwen2", minimal("qwen2"), sliding_window_size=-1, pipeline_parallel_stages=1, disaggregation=False)
    with pytest.raises(InputError, match="no sliding-window-size"):
        configure("qwen2", minimal("qwen2"), sliding_window_size=64)


@pytest.mark.parametrize("model_type", ["llama", "qwen2"])
@pytest.mark.parametrize("key", ["tensor_parallel_shards", "pipeline_parallel_stages"])
def test_a_model_that_is_split_between_devices_is_refused(model_type: str, key: str) -> None:
    name = key.replace("_", "-")
    with pytest.raises(InputError, match="is 2, and a library computes on one device") as caught:
        configure(model_type, minimal(model_type) | {key: 2})
    assert (str(caught.value.where), caught.value.fix) == (
        f"config.json: {key}",
        f"set {name} = 1 in the model's metadata",
    )
    assert getattr(configure(model_type, minimal(model_type) | {key: 2}, **{key: 1}), key) == 1


def test_llama_biases_are_written_only_where_present() -> None:
    written = configure("llama", LLAMA | {"attention_bias": True}).to_json()
    assert written["attention_bias"] is True
    assert "mlp_bias" not in written


@pytest.mark.parametrize(
    ("model_type", "change", "key"),
    [
        ("llama", {"hidden_size": None}, "hidden_size"),
        ("llama", {"hidden_size": "64"}, "hidden_size"),
        ("llama", {"hidden_size": True}, "hidden_size"),
        ("llama", {"hidden_size": 66}, "hidden_size"),
        ("llama", {"vocab_size": -1}, "vocab_size"),
        ("llama", {"vocab_size": 1 << 40}, "vocab_size"),
        ("llama", {"num_hidden_layers": 1 << 20}, "num_hidden_layers"),
        ("llama", {"num_key_value_heads": 3}, "num_key_value_heads"),
        ("llama", {"head_dim": 15}, "head_dim"),
        ("llama", {"hidden_act": "quick_gelu"}, "hidden_act"),
        ("llama", {"rms_norm_eps": None}, "rms_norm_eps"),
        ("llama", {"rms_norm_eps": float("nan")}, "rms_norm_eps"),
        ("llama", {"max_position_embeddings": None}, "max_position_embeddings"),
        ("llama", {"rope_theta": "big"}, "rope_theta"),
        ("llama", {"rope_scaling": {"type": "mrope", "factor": 2.0}}, "rope_scaling.rope_type"),
        ("llama", {"rope_scaling": {"type": "ntk-alpha", "alpha": 2.0}}, "rope_scaling.rope_type"),
        ("llama", {"rope_scaling": {"type": "linear"}}, "rope_scaling.factor"),
        ("llama", {"rope_scaling": {"rope_type": "dynamic", "factor": -2.0}}, "rope_scaling.factor"),
        ("llama", {"rope_parameters": {"rope_type": "yarn"}}, "rope_parameters.factor"),
        ("llama", {"rope_scaling": {**YARN, "attention_factor": 0}}, "rope_scaling.attention_factor"),
        ("llama", {"rope_scaling": {**YARN, "beta_fast": "x"}}, "rope_scaling.beta_fast"),
        ("llama", {"rope_scaling": {**YARN, "truncate": 1}}, "rope_scaling.truncate"),
        ("llama", {"rope_scaling": YARN, "rope_theta": 1}, "rope_scaling"),
        ("llama", {"rope_scaling": {**LONGROPE, "long_factor": None}}, "rope_scaling.long_factor"),
        ("llama", {"rope_scaling": {**LONGROPE, "long_factor": [1.0] * 7}}, "rope_scaling.long_factor"),
        ("llama", {"rope_scaling": {**LONGROPE, "long_factor": [1.0, "x"]}}, "rope_scaling.long_factor[1]"),
        (
            "llama",
            {"rope_scaling": {"type": "proportional", "partial_rotary_factor": 2}},
            "rope_scaling.partial_rotary_factor",
        ),
        ("gpt_neox", {"rope_scaling": {"type": "proportional"}}, "rope_scaling.rope_type"),
        ("llama", {"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "rope_scaling.low_freq_factor"),
        ("llama", {"rope_scaling": [1]}, "rope_scaling"),
        ("llama", {"tensor_parallel_shards": 3}, "tensor_parallel_shards"),
        ("llama", {"pipeline_parallel_stages": 3}, "pipeline_parallel_stages"),
        ("llama", {"prefill_chunk_size": -4}, "prefill_chunk_size"),
        ("llama", {"tie_word_embeddings": "yes"}, "tie_word_embeddings"),
        ("mistral", {"rope_scaling": {"rope_type": "llama3"}}, "rope_scaling.factor"),
        ("mistral", {"layer_types": ["chunked_attention"] * 2}, "layer_types"),
        ("mistral", {"context_window_size": -1, "sliding_window": None}, "context_window_size"),
        ("gpt_neox", {"hidden_act": "mish"}, "hidden_act"),
        ("gpt_neox", {"rotary_pct": 0.01}, "rotary_pct"),
        ("gpt_neox", {"rotary_pct": 2}, "rotary_pct"),
        ("gpt_neox", {"ffn_out_dtype": "float16"}, "ffn_out_dtype"),
        ("qwen2", {"use_sliding_window": True, "layer_types": ["linear_attention"] * 2}, "layer_types"),
        ("qwen2", {"layer_types": ["full_attention", "sliding_attention"]}, "layer_types"),
        ("smollm3", {"no_rope_layers": [1, "x"]}, "no_rope_layers"),
        ("smollm3", {"no_rope_layers": [1, 0, 1]}, "no_rope_layers"),
        ("smollm3", {"no_rope_layer_interval": -2}, "no_rope_layer_interval"),
        ("exaone4", {"sliding_window_pattern": "LLLG"}, "sliding_window_pattern"),
        ("exaone4", {"sliding_window_pattern": None}, "sliding_window_pattern"),
        ("cohere2", {"sliding_window_pattern": None}, "sliding_window_pattern"),
        ("helium", {"head_dim": 8}, "num_attention_heads"),
        ("glm", {"partial_rotary_factor": 0.01}, "partial_rotary_factor"),
        ("olmo", {"clip_qkv": -1.0}, "clip_qkv"),
        ("cohere", {"logit_scale": None}, "logit_scale"),
    ],
    ids=case_name,
)
def test_a_wrong_configuration_names_its_key(model_type: str, change: dict[str, Any], key: str) -> None:
    with pytest.raises(InputError) as error:
        configure(model_type, minimal(model_type) | change)
    assert error.value.where == f"config.json: {key}"


def test_model_type_is_inferred() -> None:
    assert infer_model_type(LLAMA) == "llama"
    assert infer_model_type({"model_type": "qwen3"}) == "qwen3"
    assert infer_model_type({"architectures": ["MistralForCausalLM"], "model_type": "other"}) == "mistral"


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"model_type": "bert"},
        {"model_type": 3},
        {"model_type": "llama", "architectures": ["LlamaForSequenceClassification"]},
    ],
)
def test_an_unsupported_architecture_says_where_the_supported_are_listed(config: dict[str, Any]) -> None:
    says = r"docs/models\.md" if config else "set the model's model-type in the manifest"
    with pytest.raises(InputError, match=says):
        infer_model_type(config)


def test_an_unknown_model_type_is_answered_with_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean 'llama'"):
        family("lama")


def test_layers_of_gemma_2_alternate_where_mlc_does_not_say_it() -> None:
    gemma2 = family("gemma2")
    config = gemma2.configure(minimal("gemma2") | {"sliding_window": 16}, Overrides(context_window_size=64))
    kinds = ("sliding_attention", "full_attention")
    assert config.layer_types == kinds
    mlc = {key: value for key, value in config.to_json().items() if key != "layer_types"}
    assert gemma2.restore(mlc, Overrides()).layer_types == kinds
    assert gemma2.restore(config.to_json() | {"layer_types": None}, Overrides()).layer_types is None


def test_the_first_gemma_means_the_approximation_by_gelu() -> None:
    for keys in ({"hidden_act": "gelu"}, {"hidden_act": "gelu", "hidden_activation": "gelu_pytorch_tanh"}, {}):
        gemma = family("gemma")
        assert (
            gemma.decoder(gemma.configure(minimal("gemma") | keys, Overrides())).blocks[0].mlp.activation == "gelu_tanh"
        )


def test_gemma_3_is_as_mlc_has_it() -> None:
    """MLC's parameters, and its model_config: the text's values in an object, and in `kwargs` there what it does not know."""
    gemma3 = family("gemma3_text")
    keys = {"sliding_window": 16, "head_dim": 16, "rope_local_base_freq": 500.0, "sliding_window_pattern": 2}
    config = gemma3.configure(minimal("gemma3_text") | keys, Overrides())
    text: Any = config.to_json()["text_config"]
    unknown = {name: text[name] for name in ("sliding_window", "rope_local_base_freq")}
    known = {name: text[name] for name in text if name not in (*unknown, "layer_types", "local_layers")}
    theirs = {
        "sliding_window_size": 16,
        "kwargs": {**unknown, "sliding_window_pattern": 2, "model_type": "gemma3_text"},
    }
    mlc = {**config.to_json(), "sliding_window_size": 16, "text_config": {**known, **theirs}}
    assert gemma3.restore(json.loads(json.dumps(mlc)), Overrides()) == config
    layer, attention = "language_model.model.layers.0", "language_model.model.layers.0.self_attn"
    assert [one.name.removesuffix(".weight") for one in gemma3.parameters(config)[:13]] == [
        "language_model.model.embed_tokens",
        *(f"{attention}.{name}" for name in ("q_proj", "k_proj", "v_proj", "o_proj", "q_norm", "k_norm")),
        *(f"{layer}.{name}" for name in ("mlp.gate_up_proj", "mlp.down_proj", "input_layernorm")),
        *(f"{layer}.{name}" for name in ("post_attention_layernorm", "pre_feedforward_layernorm")),
        f"{layer}.post_feedforward_layernorm",
    ]
    assert gemma3.parameters(config)[1].sources == ("model.layers.0.self_attn.q_proj.weight",)


def test_layers_of_gemma_3_keep_their_rope_where_a_manifest_takes_their_windows_away() -> None:
    gemma3 = family("gemma3_text")
    keys = {"sliding_window": 16, "sliding_window_pattern": 2, "rope_local_base_freq": 500.0}
    for overrides in (Overrides(), Overrides(sliding_window_size=-1)):
        config = gemma3.configure(minimal("gemma3_text") | keys, overrides)
        ropes = [block.attention.rope for block in gemma3.decoder(config).blocks]
        assert [rope.theta for rope in ropes if rope is not None] == [500.0, 1000000]
        assert gemma3.restore(config.to_json(), Overrides()) == config


@pytest.mark.parametrize("model_type", ["cohere2", "exaone4", "olmo3"])
def test_layers_keep_their_rope_where_a_manifest_takes_their_windows_away(model_type: str) -> None:
    """Of OLMo 3 all have one, of the others those with a window."""
    kinds = ["sliding_attention", "full_attention"]
    keys = minimal(model_type) | {"sliding_window": 16, "layer_types": kinds}
    for size, window in ((None, 16), (-1, None)):
        config = family(model_type).configure(keys, Overrides(sliding_window_size=size))
        layers = [block.attention for block in family(model_type).decoder(config).blocks]
        assert [layer.window for layer in layers] == [window, None]
        assert [layer.rope is not None for layer in layers] == [True, model_type == "olmo3"]
        assert family(model_type).restore(config.to_json(), Overrides()) == config


def test_without_a_window_every_layer_of_exaone_4_has_rope_and_none_of_cohere_2() -> None:
    for model_type, has_rope in (("exaone4", True), ("cohere2", False)):
        config = configure(model_type, minimal(model_type) | {"sliding_window": None})
        blocks = family(model_type).decoder(config).blocks
        assert {block.attention.rope is not None for block in blocks} == {has_rope}


@pytest.mark.parametrize(
    ("keys", "where"),
    [
        ({"rope_parameters": {"rope_type": "linear", "factor": 2.0}}, "rope_parameters.rope_type"),
        ({"rope_parameters": {"full_attention": 3}}, "rope_parameters.full_attention"),
        (
            {"rope_parameters": {"sliding_attention": {"rope_type": "linear", "factor": 2.0}}},
            "rope_parameters.sliding_attention.rope_type",
        ),
        ({"rope_scaling": {"rope_type": "linear"}}, "rope_scaling.factor"),
        ({"attn_logit_softcapping": 50.0}, "attn_logit_softcapping"),
    ],
)
def test_ropes_by_type_of_layer_that_are_refused(keys: dict[str, Any], where: str) -> None:
    with pytest.raises(InputError) as caught:
        configure("gemma3_text", minimal("gemma3_text") | keys)
    assert str(caught.value.where) == f"config.json: {where}"


def test_local_layers_are_one_for_each_layer() -> None:
    with pytest.raises(InputError, match="each of 2 layers"):
        family("gemma3_text").restore(minimal("gemma3_text") | {"local_layers": [True]}, Overrides())


def test_queries_of_ministral_3_grow_beyond_the_original_length() -> None:
    ministral3 = family("ministral3")
    keys = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, "llama_4_scaling_beta": 0.1}
    for context, wanted in ((64, None), (65, TemperatureSpec(0.1, 64))):
        source = minimal("ministral3") | {"rope_parameters": keys}
        config = ministral3.configure(source, Overrides(context_window_size=context))
        assert ministral3.decoder(config).blocks[0].attention.temperature == wanted
        assert config.rope_parameters["llama_4_scaling_beta"] == 0.1


@pytest.mark.parametrize("beta", [None, "x", True])
def test_ministral_3_says_by_what_queries_grow(beta: Any) -> None:
    keys = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, "llama_4_scaling_beta": beta}
    with pytest.raises(InputError) as caught:
        configure("ministral3", minimal("ministral3") | {"rope_scaling": keys})
    assert str(caught.value.where) == "config.json: rope_scaling.llama_4_scaling_beta"
