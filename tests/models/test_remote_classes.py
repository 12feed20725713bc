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
@pytest.mark.parametrize("key", ["hidden_size", "num_attention_heads", "num_hidden_layers", "vocab_size"])
def test_a_size_that_tensors_show_must_be_there(model_type: str, key: str) -> None:
    config = {name: value for name, value in SIZES.items() if name != key} | {"model_type": model_type}
    with pytest.raises(InputError, match="is missing"):
        family(model_type).configure(config, Overrides())


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


CHATGLM: dict[str, Any] = {
    "model_type": "chatglm",
    "architectures": ["ChatGLMModel"],
    "ffn_hidden_size": 32,
    "hidden_size": 64,
    "kv_channels": 16,
    "num_attention_heads": 4,
    "num_layers": 2,
    "padded_vocab_size": 60,
    "seq_length": 128,
}


@pytest.mark.parametrize(
    ("keys", "place"),
    [
        ({"position_encoding_2d": True}, "position_encoding_2d"),
        ({"pre_seq_len": 64}, "pre_seq_len"),
        ({"apply_residual_connection_post_layernorm": True}, "apply_residual_connection_post_layernorm"),
        ({"post_layer_norm": False}, "post_layer_norm"),
        ({"rmsnorm": False}, "rmsnorm"),
        ({"kv_channels": 32}, "num_attention_heads"),
        ({"multi_query_attention": True, "multi_query_group_num": 3}, "multi_query_group_num"),
        ({"rope_ratio": 0.0 - 1}, "rope_ratio"),
    ],
)
def test_what_no_published_chatglm_has_is_refused(keys: dict[str, Any], place: str) -> None:
    assert refused_of(CHATGLM | keys).where == f"config.json: {place}"


def test_the_ratio_of_chatglms_rope_is_one_of_bases_unless_the_name_says_chatglm2() -> None:
    notes: list[str] = []
    later = family("chatglm").configure(CHATGLM | {"rope_ratio": 50}, Overrides(), note=notes.append)
    assert (later.position_embedding_base, later.rope_scaling) == (500000, None)
    assert "rope_ratio = 50 multiplies the base of RoPE" in notes[0]
    second = CHATGLM | {"rope_ratio": 50, "_name_or_path": "THUDM/chatglm2-6b-32k"}
    earlier = family("chatglm").configure(second, Overrides())
    assert (earlier.position_embedding_base, earlier.rope_scaling) == (10000, {"rope_type": "linear", "factor": 50})


def refused_of(config: dict[str, Any]) -> InputError:
    with pytest.raises(InputError) as error:
        family(infer_model_type(config)).configure(config, Overrides())
    return error.value


@pytest.mark.parametrize("keys", [{"num_experts": 8}, {"sparse_config": {"kernel_size": 32}}])
def test_a_minicpm_that_is_not_dense_is_refused(keys: dict[str, Any]) -> None:
    assert refused({"model_type": "minicpm", **keys}).where == f"config.json: {next(iter(keys))}"


def test_a_minicpm_whose_experts_mlc_wrote_is_refused() -> None:
    config, _ = configured({"model_type": "minicpm"})
    with pytest.raises(InputError, match="num_experts: is 8"):
        family("minicpm").restore(config.to_json() | {"num_experts": 8}, Overrides())


QWEN = {"model_type": "qwen", "kv_channels": 16, "seq_length": 64}


def test_the_context_of_qwen_ends_where_its_rope_and_its_queries_change() -> None:
    config, notes = configured(QWEN)
    assert (config.context_window_size, config.prefill_chunk_size) == (64, 64)
    assert notes == ["the context window has the 64 tokens of seq_length; longer texts change RoPE and queries"]
    assert configured(QWEN, context_window_size=32)[0].context_window_size == 32
    assert refused(QWEN, context_window_size=128).fix == "set context-window-size to at most 64"


def test_a_qwen_without_these_changes_has_its_whole_context() -> None:
    config, notes = configured(QWEN | {"use_dynamic_ntk": False, "use_logn_attn": False})
    assert (config.context_window_size, notes) == (128, [])


@pytest.mark.parametrize(
    ("keys", "place"),
    [
        ({"kv_channels": 8}, "num_attention_heads"),
        ({"rotary_pct": 0.5}, "rotary_pct"),
        ({"scale_attn_weights": False}, "scale_attn_weights"),
        ({"rope_scaling": {"rope_type": "linear", "factor": 2.0}}, "rope_scaling.rope_type"),
    ],
)
def test_what_no_published_qwen_has_is_refused(keys: dict[str, Any], place: str) -> None:
    assert refused(QWEN | keys).where == f"config.json: {place}"


@pytest.mark.parametrize(
    "sizes", [{"max_position_embeddings": "absent"}, {"num_attention_heads": 40, "hidden_size": 80}]
)
def test_a_baichuan_with_biases_for_positions_is_refused(sizes: dict[str, Any]) -> None:
    config = (
        SIZES | {"model_type": "baichuan", "architectures": ["BaichuanForCausalLM"], "model_max_length": 128} | sizes
    )
    error = refused_of({key: value for key, value in config.items() if value != "absent"})
    assert error.where == "config.json: model_type"
    assert "ALiBi" in str(error.why)


@pytest.mark.parametrize(
    ("keys", "unit"),
    [
        ({"architectures": ["BaichuanForCausalLM"]}, True),
        ({"architectures": ["BaiChuanForCausalLM"]}, False),
        ({"vocab_size": 125696}, True),
        ({}, False),
    ],
)
def test_the_head_of_baichuan_2_has_rows_of_length_one(keys: dict[str, Any], unit: bool) -> None:
    config, _ = configured({"model_type": "baichuan", **keys})
    head = family("baichuan").parameters(config)[-1]
    assert (head.name, head.unit_rows, head.in_order) == ("lm_head.weight", unit, not unit)


def test_a_tied_head_of_baichuan_is_refused() -> None:
    assert refused({"model_type": "baichuan", "tie_word_embeddings": True}).where == "config.json: tie_word_embeddings"
