"""The text of models of text and images, against transformers' class of the whole run with text alone."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmbuild.errors import InputError, MultiError
from llmbuild.models.family import Overrides
from llmbuild.models.registry import family, infer_model_type
from llmbuild.models.wrappers import TEXT_OF, TEXT_SIZES, WRAPPERS, text_config
from tests.helpers.agreement import FUNCTIONS, agree
from tests.helpers.changed import copy_with
from tests.helpers.generic_library import GenericLibrary
from tests.helpers.variants import all_logits, write_checkpoint
from tests.tasks.test_inspect import inspect, quantized

CONFIGS: dict[str, dict[str, Any]] = {
    f"{path.stem}/{name}": config
    for path in sorted((Path(__file__).parent / "wrapped").glob("*.json"))
    for name, config in json.loads(path.read_text()).items()
}
IN_CI = ("gemma3/windows and two ropes", "mllama/cross-attention layers left out")
EVERY = [pytest.param(name, marks=() if name in IN_CI else pytest.mark.full) for name in CONFIGS]


def test_every_wrapper_has_a_configuration() -> None:
    assert {name.partition("/")[0] for name in CONFIGS} == WRAPPERS.keys()


@pytest.mark.parametrize("name", EVERY)
def test_logits_are_those_of_the_whole_with_text_alone(name: str, tmp_path: Path) -> None:
    model = write_checkpoint(tmp_path, CONFIGS[name], images=True)
    agree(GenericLibrary(tmp_path, functions=FUNCTIONS), partial(all_logits, model), 2e-5)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_repository_of_text_and_images_is_quantized_as_its_text(name: str, tmp_path: Path) -> None:
    model = write_checkpoint(tmp_path / "in", CONFIGS[name], images=True)
    stored, facts, notes = quantized(tmp_path / "in", tmp_path / "out")
    assert facts == {}
    assert sum("only the text model" in note for note in notes) == 1
    kind = family(infer_model_type(CONFIGS[name]))
    config = kind.configure(CONFIGS[name], Overrides())
    assert set(stored) == {parameter.name for parameter in kind.parameters(config)}
    embedding = model.get_input_embeddings().weight.detach().numpy()[: config.vocab_size]
    assert np.array_equal(stored[kind.decoder(config).names.embedding + ".weight"], embedding)
    tied = model.get_input_embeddings().weight.data_ptr() == model.get_output_embeddings().weight.data_ptr()
    assert config.tie_word_embeddings is tied


def test_a_head_that_the_configuration_calls_tied_and_that_differs_is_the_models_own(tmp_path: Path) -> None:
    """Mistral Small 3's configurations leave the key out, whose default is true, and have a head."""
    source = CONFIGS["mistral3/of mistral with a head"]
    write_checkpoint(tmp_path / "in", source, images=True)
    absent = {key: value for key, value in source.items() if key != "tie_word_embeddings"}
    (tmp_path / "in/config.json").write_text(json.dumps(absent))
    assert inspect(tmp_path / "in", tmp_path / "out")[0] == {"tie_word_embeddings": False}


@pytest.mark.parametrize(
    "name", ["language_model.model.layers.0.mlp.adapter.weight", "audio_tower.conv.weight", "vision_towers.weight"]
)
def test_a_tensor_that_no_pattern_declares_is_refused(name: str, tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "in", CONFIGS["gemma3/windows and two ropes"], images=True)
    changed = copy_with(
        tmp_path / "in", tmp_path / "changed", lambda tensors: tensors.update({name: np.zeros((2, 2), np.float32)})
    )
    with pytest.raises((InputError, MultiError), match="unexpected tensor"):
        inspect(changed, tmp_path / "out")


def test_padded_embeddings_are_told_the_key_of_the_text(tmp_path: Path) -> None:
    source = CONFIGS["gemma3/windows and two ropes"]
    write_checkpoint(tmp_path, source, images=True)
    rows = source["text_config"]["vocab_size"]
    (tmp_path / "config.json").write_text(
        json.dumps({**source, "text_config": {**source["text_config"], "vocab_size": rows - 5}})
    )
    with pytest.raises(InputError, match="shape mismatch") as caught:
        inspect(tmp_path, tmp_path / "out")
    assert caught.value.fix == f"set text_config.vocab_size = {rows} in config.json"


def test_the_text_of_a_configuration_is_one_of_its_own() -> None:
    for config in CONFIGS.values():
        text = text_config(config)
        assert text_config(text) == text
        assert (TEXT_OF in text) is ("text_config" in config)
        assert infer_model_type(text) == infer_model_type(config)
    gemma3 = CONFIGS["gemma3/windows and two ropes"]
    assert text_config(gemma3)["eos_token_id"] == [2, 7]
    kind = family("gemma3_text")
    config = kind.configure(gemma3, Overrides())
    assert config.to_json()["is_text_model"] is False
    assert kind.restore(config.to_json(), Overrides()) == config


def test_gemma_3_4b_leaves_out_what_is_the_classes_default() -> None:
    text = {"hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 34, "sliding_window": 1024}
    scaled = {"model_type": "gemma3_text", "rope_scaling": {"factor": 8.0, "rope_type": "linear"}}
    config = family("gemma3_text").configure({"model_type": "gemma3", "text_config": text | scaled}, Overrides())
    assert (config.num_attention_heads, config.num_key_value_heads, config.head_dim) == (8, 4, 256)
    assert (config.vocab_size, config.context_window_size, config.tie_word_embeddings) == (262208, 8192, True)
    assert config.local_layers == tuple(layer % 6 != 5 for layer in range(34))


@pytest.mark.parametrize("model_type", TEXT_SIZES)
def test_sizes_that_a_text_leaves_out_are_those_of_transformers_class(model_type: str) -> None:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    theirs = CONFIG_MAPPING[model_type]()
    assert {name: getattr(theirs, name) for name in TEXT_SIZES[model_type]} == TEXT_SIZES[model_type]


def test_llava_leaves_out_sizes() -> None:
    text = {"model_type": "llama", "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "vocab_size": 32064}
    config = family("llama").configure({"model_type": "llava", "text_config": text}, Overrides())
    assert (config.hidden_size, config.intermediate_size, config.num_hidden_layers) == (4096, 11008, 32)
    assert (config.num_attention_heads, config.num_key_value_heads, config.vocab_size) == (32, 32, 32064)


@pytest.mark.parametrize(
    ("keys", "where"),
    [
        ({"text_config": None}, "text_config"),
        ({"text_config": {"model_type": "mamba"}}, "text_config.model_type"),
        (
            {"text_config": {**CONFIGS["gemma3/windows and two ropes"]["text_config"], "hidden_size": "x"}},
            "text_config.hidden_size",
        ),
        ({"architectures": ["Gemma3ForSequenceClassification"]}, "architectures"),
    ],
)
def test_what_is_wrong_in_a_wrapped_configuration_is_named_where_it_stands(keys: dict[str, Any], where: str) -> None:
    config = CONFIGS["gemma3/windows and two ropes"] | keys
    with pytest.raises(InputError) as caught:
        family(infer_model_type(config)).configure(config, Overrides())
    assert str(caught.value.where) == f"config.json: {where}"


def test_layers_that_are_no_numbers_are_refused() -> None:
    config = CONFIGS["mllama/cross-attention layers left out"]
    config = config | {"text_config": config["text_config"] | {"cross_attention_layers": "x"}}
    with pytest.raises(InputError, match="list of layers"):
        infer_model_type(config)
