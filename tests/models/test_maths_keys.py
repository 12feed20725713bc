"""The data about transformers' classes, held against the installed ones."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from llmbuild.models.maths_keys import MATHS_KEYS, MODEL_TYPES, TRANSFORMERS
from llmbuild.models.registry import families
from llmbuild.models.values import ACTIVATIONS
from tests.helpers.config_oracle import POINTS

SPELLINGS = {name: family.spelling for family in families().values() for name in family.classes}
CONFIG_CLASSES = {
    name: found for family in families().values() for name, found in family.classes.items() if not found.remote
}
SIZES = {"hidden_size": 48, "intermediate_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2, "vocab_size": 60}
SIZES |= {"pad_token_id": 0, "rotary_dim": 8, "mamba_n_heads": 2}
# Of values that are neutral, another; of a list, one that has an entry a layer.
OTHERS: dict[str, Any] = {
    "no_rope_layers": [0, 1],
    "position_embedding_type": "absolute",
    "norm_type": "layer_norm",
    "hidden_size_per_layer_input": 8,
    "vocab_size_per_layer_input": 8,
}


def classes() -> Any:
    from transformers import logging
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    logging.set_verbosity_error()
    return CONFIG_MAPPING


def installed() -> bool:
    import transformers

    return str(transformers.__version__) == TRANSFORMERS


@pytest.mark.parametrize("model_type", CONFIG_CLASSES)
def test_every_default_is_that_of_transformers_5_24(model_type: str) -> None:
    found, cls = CONFIG_CLASSES[model_type], classes()[model_type]
    assert cls.__name__ == found.name
    fields = {one.name: one.default for one in dataclasses.fields(cls)}
    for name, default in found.defaults.items():
        key = SPELLINGS[model_type].get(name, name)
        if key in ("head_dim", "layer_types") and key not in fields:
            # A key of some of the family's files that the class keeps as it is.
            assert default is None
            continue
        follows = default is None or (key == "num_key_value_heads" and fields[key] is None)
        assert (fields[key] == default) if not follows else fields[key] in (None, default), key
    read = {*SIZES, *found.defaults, *SPELLINGS[model_type].values()}
    assert found.renamed == {name: key for name, key in cls.attribute_map.items() if key in read}
    assert found.rope == hasattr(cls(**SIZES), "rope_parameters")
    if not found.rope:
        return
    theta: Any = found.default_theta
    if isinstance(cls.default_theta, dict):
        theta = {"global": theta, "local": found.default_local_theta}
    assert cls.default_theta == theta
    partial = cls(**SIZES).rope_parameters.get("partial_rotary_factor", 1.0)
    assert partial == found.default_partial


@pytest.mark.parametrize("model_type", CONFIG_CLASSES)
def test_null_is_taken_where_transformers_takes_it(model_type: str) -> None:
    found, cls = CONFIG_CLASSES[model_type], classes()[model_type]
    for key in found.defaults:
        try:
            # Without a window exaone4's class computes layers' kinds only where they are named.
            named = {"layer_types": ["full_attention"] * 2} if model_type == "exaone4" else {}
            loaded = cls(**SIZES | named | {SPELLINGS[model_type].get(key, key): None})
            # A qwen2 model is made with a null head size, and then fails.
            taken = key != "head_dim" or loaded.head_dim is not None
        except Exception as error:  # the errors of strict dataclasses are of huggingface_hub
            assert "Strict" in type(error).__name__
            taken = False
        assert taken == (key in found.nullable), key


@pytest.mark.parametrize("model_type", [name for name in CONFIG_CLASSES if name in MODEL_TYPES])
def test_keys_that_a_class_is_said_not_to_read_change_nothing(model_type: str) -> None:
    """All of them at once, in prefill and in decoding with a cache."""
    import torch
    from transformers import AutoModelForCausalLM

    ignored = {
        name: OTHERS.get(name, 3)
        for name, key in MATHS_KEYS.items()
        if not key.is_read_by(model_type) and name not in CONFIG_CLASSES[model_type].defaults
    }
    assert len(ignored) > 35
    plain: dict[str, Any] = {**SIZES, "num_key_value_heads": 2, "head_dim": 12}
    if model_type == "cwm":
        # The class has a scaling, for which transformers' frequencies go by a partial_rotary_factor; llmbuild refuses it there.
        plain["rope_parameters"] = {"rope_type": "default", "rope_theta": 10000.0}
    if model_type == "granitemoehybrid":
        plain |= {"layer_types": ["full_attention"] * 2, "num_local_experts": 0, "position_embedding_type": "rope"}
    if (partial := CONFIG_CLASSES[model_type].partial) is not None:
        plain[partial] = 0.5
    parameters = getattr(classes()[model_type](**plain), "rope_parameters", None) or {}
    if parameters.get("rope_type", "default") not in ("default", None):
        # Functions for other types than the default read it of all models, and llmbuild refuses it there.
        del ignored["partial_rotary_factor"]
    tokens = torch.arange(3, 15)[None]
    logits = []
    for keys in ({}, ignored):
        torch.manual_seed(5)
        model = AutoModelForCausalLM.from_config(classes()[model_type](**plain | keys)).eval()
        with torch.no_grad():
            first = model(tokens[:, :8], use_cache=True)
            second = model(tokens[:, 8:], past_key_values=first.past_key_values)
        logits.append(torch.cat([first.logits, second.logits], dim=1))
    assert torch.equal(*logits)


@pytest.mark.skipif("not installed()", reason="the table is of another release of transformers")
def test_the_model_types_and_the_readers_are_those_of_the_installed_transformers() -> None:
    import transformers
    from transformers.models.auto.configuration_auto import model_type_to_module_name
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    assert set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES) == MODEL_TYPES
    models = Path(transformers.__file__).parent / "models"
    known = {name: key.readers for name, key in MATHS_KEYS.items() if key.readers is not None}
    found: dict[str, set[str]] = {name: set() for name in known}
    pattern = re.compile(rf"(?:config\.|[\"'])({'|'.join(known)})\b")
    for model_type in MODEL_TYPES:
        cls = classes()[model_type]
        folder = models / model_type_to_module_name(model_type)
        files = [*folder.glob("modeling_*.py"), *folder.glob("configuration_*.py")]
        named = {name for file in files for name in pattern.findall(file.read_text(encoding="utf-8"))}
        named |= {one.name for one in dataclasses.fields(cls)} | set(cls.attribute_map)
        for name in named & found.keys():
            found[name].add(model_type)
    assert {name: sorted(types) for name, types in found.items()} == {
        name: sorted(types) for name, types in known.items()
    }


def test_activations_of_one_meaning_are_one_function() -> None:
    import torch
    from transformers.activations import ACT2FN

    plain = {"silu": "silu", "gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh", "relu": "relu", "relu2": "relu2"}
    points = torch.from_numpy(POINTS)
    for name, meant in ACTIVATIONS.items():
        assert torch.allclose(ACT2FN[name](points), ACT2FN[plain[meant]](points), atol=1e-6)
