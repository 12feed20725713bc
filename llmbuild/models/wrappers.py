"""Models of text and images whose text model is one of a family: where config.json and the tensors have it.

Only the text model is built.  It computes what transformers' class of the whole computes of a text alone, where positions in
pictures (mrope) are plain ones, and layers that attend to a picture are passed over.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from llmbuild.canonical import Json
from llmbuild.errors import InputError, Where
from llmbuild.models.values import shown

TEXT_OF = "text_of"
"""A key of ours in a text model's configuration: the model type of the whole, whose `text_config` it was."""

CARRIED = ("dtype", "torch_dtype", "quantization_config", "compression_config", "quantization", "transformers_weights")
"""Keys of the whole that are about its files."""

TEXT_SIZES: Mapping[str, Mapping[str, Json]] = {
    "llama": {
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "vocab_size": 32000,
    },
    "mistral": {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "vocab_size": 32000,
    },
}
"""Sizes of transformers' classes, by model type: a `text_config` leaves out what is the class's (LLaVA 1.5, Pixtral)."""

TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")
"""Keys that count where the whole has them, else where its text has them."""


@dataclass(frozen=True, slots=True)
class Wrapper:
    """`text` is the model type of a `text_config` that names none; `towers` are the modules that a text alone does not use.

    With `flat` the text's values may lie in the whole's own object.  `tied` is the class's default of `tie_word_embeddings`,
    which counts for the whole; None: head and embedding are never tied.  With `tied_by_text` the text's own says so too.
    `passed_over` is the key of the layers that a text alone does not go through, with those of a configuration without it, and
    `extra_rows` are rows of the embedding that stand for no text.
    """

    architecture: str
    text: str
    towers: tuple[str, ...]
    flat: bool = False
    tied: bool | None = False
    tied_by_text: bool = False
    passed_over: tuple[str, tuple[int, ...]] | None = None
    extra_rows: int = 0


_LLAVA = ("vision_tower.", "multi_modal_projector.")
WRAPPERS: Mapping[str, Wrapper] = {
    "gemma3": Wrapper("Gemma3ForConditionalGeneration", "gemma3_text", _LLAVA, tied=True),
    "llava": Wrapper("LlavaForConditionalGeneration", "llama", _LLAVA, tied_by_text=True),
    "mistral3": Wrapper("Mistral3ForConditionalGeneration", "mistral", _LLAVA, tied=True),
    "mllama": Wrapper(
        "MllamaForConditionalGeneration",
        "mllama_text_model",
        ("vision_model.", "multi_modal_projector."),
        tied=None,
        passed_over=("cross_attention_layers", (3, 8, 13, 18, 23, 28, 33, 38)),
        extra_rows=8,
    ),
    "qwen2_vl": Wrapper("Qwen2VLForConditionalGeneration", "qwen2_vl_text", ("visual.",), flat=True, tied_by_text=True),
    "qwen2_5_vl": Wrapper(
        "Qwen2_5_VLForConditionalGeneration", "qwen2_5_vl_text", ("visual.",), flat=True, tied_by_text=True
    ),
    "qwen3_vl": Wrapper("Qwen3VLForConditionalGeneration", "qwen3_vl_text", ("visual.",)),
}
"""By the `model_type` of config.json."""


def wrapper_of(config: Mapping[str, Json]) -> Wrapper | None:
    """The wrapper that a config.json's content describes, None for a text model and for other classes of the same type."""
    model_type, names = config.get("model_type"), config.get("architectures")
    found = WRAPPERS.get(model_type) if isinstance(model_type, str) else None
    if found is None or (isinstance(names, list | tuple) and names and found.architecture not in names):
        return None
    return found


def text_config(config: Mapping[str, Json]) -> Mapping[str, Json]:
    """The text model's configuration as a config.json of its own; `config` itself where it is of a text model.

    Raises InputError for one of both kinds without its text.
    """
    wrapper = wrapper_of(config)
    if wrapper is None:
        return config
    inner = config.get("text_config")
    if inner is None and wrapper.flat:
        hidden = ("architectures", "vision_config", "text_config")
        return {
            **{key: value for key, value in config.items() if key not in hidden},
            "model_type": wrapper.text,
            "tie_word_embeddings": config.get("tie_word_embeddings", wrapper.tied),
        }
    if not isinstance(inner, Mapping):
        raise InputError(
            f"must be an object, not {shown(inner)}",
            where=Where("config.json", key="text_config"),
            why=f"a {config['model_type']} model has its text model's values there",
        )
    carried = {key: config[key] for key in CARRIED if key in config}
    tokens = {key: config[key] for key in TOKENS if config.get(key) is not None}
    model_type = inner.get("model_type", wrapper.text)
    sizes = TEXT_SIZES.get(model_type, {}) if isinstance(model_type, str) else {}
    values = {**carried, **sizes, **inner, **tokens, "model_type": model_type, TEXT_OF: config["model_type"]}
    values["tie_word_embeddings"] = _tied(wrapper, config, inner)
    values.pop("architectures", None)
    if wrapper.passed_over is not None:
        values.pop(wrapper.passed_over[0], None)
        layers, passed = inner.get("num_hidden_layers"), passed_over(config)
        if isinstance(layers, int):
            values["num_hidden_layers"] = layers - sum(layer < layers for layer in passed)
    return values


def _tied(wrapper: Wrapper, config: Mapping[str, Json], inner: Mapping[str, Json]) -> Json:
    if wrapper.tied is None:
        return False
    tied = config.get("tie_word_embeddings", wrapper.tied)
    return (tied or inner.get("tie_word_embeddings", False)) if wrapper.tied_by_text else tied


def passed_over(config: Mapping[str, Json]) -> frozenset[int]:
    """The layers of the whole that a text alone does not go through.  Raises InputError for what is no list of numbers."""
    wrapper, inner = wrapper_of(config), config.get("text_config")
    if wrapper is None or wrapper.passed_over is None or not isinstance(inner, Mapping):
        return frozenset()
    key, default = wrapper.passed_over
    found = inner.get(key)
    layers = default if found is None else found
    if not isinstance(layers, list | tuple) or not all(type(layer) is int and layer >= 0 for layer in layers):
        raise InputError(
            f"must be a list of layers, not {shown(found)}", where=Where("config.json", key=f"text_config.{key}")
        )
    return frozenset(layer for layer in layers if isinstance(layer, int))
