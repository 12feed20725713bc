"""config.json as GGUF metadata implies it, in Hugging Face's spelling.

Keys: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""

from __future__ import annotations

import math
import reprlib
from array import array
from collections.abc import Callable, Mapping
from typing import Any

from llmbuild.canonical import Json
from llmbuild.checkpoints.tensor import TensorInfo
from llmbuild.errors import InputError
from llmbuild.models.config_classes import ConfigClass
from llmbuild.models.gguf.architecture import GgufArchitecture
from llmbuild.models.gguf.keys import NEUTRAL
from llmbuild.models.gguf.known import Chosen
from llmbuild.models.gguf.rope import Factors, rope_scaling
from llmbuild.models.gguf.values import GgufValues, shortest
from llmbuild.models.layer_types import FULL, SLIDING

_TOKENS = {"bos_token_id": "bos_token_id", "eos_token_id": "eos_token_id", "pad_token_id": "padding_token_id"}
_SAMPLING = {"temperature": "temp", "top_p": "top_p", "top_k": "top_k", "repetition_penalty": "penalty_repeat"}


def make_config(
    chosen: Chosen, metadata: Mapping[str, Any], tensors: Mapping[str, TensorInfo], factors: Factors
) -> dict[str, Any]:
    """`factors` are the contents of those tensors of `rope.FACTORS` that the file has.

    Raises InputError for metadata that is missing or not valid.
    """
    values, family, gguf = chosen
    if values.integer("expert_count", 0):
        raise values.wrong("expert_count", "the model is a mixture of experts, which is not supported")
    own_type = family.model_type if family.model_type in family.classes else next(iter(family.classes))
    like = family.classes[own_type]
    config: dict[str, Any] = {
        "architectures": [family.architectures[0]],
        "model_type": own_type,
        "hidden_size": values.hidden,
        "intermediate_size": values.integer("feed_forward_length"),
        "num_hidden_layers": values.layers,
        "num_attention_heads": values.heads,
    }
    for key, default in like.defaults.items():
        value = _USUAL[key](values, default) if key in _USUAL and key not in gguf.keys else None
        if value is not None or (key in _USUAL and key in like.nullable):
            config[key] = value
    config |= (_rotated(values, like) if like.rope else {}) | _windows(values, like, gguf)
    config |= {key: read(values) for key, read in gguf.keys.items()}
    scaling = rope_scaling(values, config[like.theta], factors) if like.rope else None
    if scaling is not None:
        config["rope_scaling"] = scaling | {key: read(values) for key, read in gguf.scaling.items()}
    embedding = tensors.get("token_embd.weight")
    if embedding is None or len(embedding.shape) != 2:
        raise InputError("the GGUF file has no embedding token_embd.weight", where=str(values.path))
    config["vocab_size"] = embedding.shape[0]
    config["tie_word_embeddings"] = "output.weight" not in tensors
    for key, neutral in NEUTRAL.items():
        if key not in values.asked | gguf.unused and (value := values.get(key, neutral[0])) not in neutral:
            raise values.wrong(key, f"it is {reprlib.repr(value)}, which is not supported for {values.architecture}")
    for name, key in _TOKENS.items():
        value = metadata.get(f"tokenizer.ggml.{key}")
        if isinstance(value, int):
            config[name] = value
    return {family.spelling.get(key, key): value for key, value in config.items()}


def make_generation_config(metadata: Mapping[str, Any]) -> dict[str, Any] | None:
    """generation_config.json from the sampling values that newer files have, or None."""
    found = {name: metadata.get(f"general.sampling.{key}") for name, key in _SAMPLING.items()}
    values = {name: shortest(value) for name, value in found.items() if isinstance(value, int | float)}
    return values or None


def _eps(first: str, second: str) -> Callable[[GgufValues, Json], Json]:
    """The epsilon of norms, which files have for the kind of norm of their architecture."""
    keys = tuple(f"attention.{name}_epsilon" for name in (first, second))
    return lambda values, _: values.number(next(filter(values.says, keys), keys[0]))


def _has(*names: str) -> Callable[[GgufValues, Json], Json]:
    return lambda values, _: any(map(values.has, names))


def _default(_: GgufValues, default: Json) -> Json:
    """What no key says: llama.cpp has one function for each architecture."""
    return default


def _softcap(key: str) -> Callable[[GgufValues, Json], Json]:
    """A cap is the architecture's own where a file names none."""
    return lambda values, default: values.number(key) if values.says(key) else default


_LAYER_NORM, _RMS_NORM = "layer_norm", "layer_norm_rms"
_QKV_BIAS = _has("attn_q.bias", "attn_qkv.bias")
_USUAL: Mapping[str, Callable[[GgufValues, Json], Json]] = {
    "num_key_value_heads": lambda values, _: values.key_value_heads,
    "head_dim": lambda values, _: values.head_size,
    "hidden_act": _default,
    "hidden_activation": _default,
    "max_position_embeddings": lambda values, _: values.integer("context_length"),
    "original_max_position_embeddings": lambda values, _: (
        values.integer("rope.scaling.original_context_length", 0) or None
    ),
    "rms_norm_eps": _eps(_RMS_NORM, _LAYER_NORM),
    **dict.fromkeys(("layer_norm_eps", "norm_epsilon", "norm_eps"), _eps(_LAYER_NORM, _RMS_NORM)),
    **dict.fromkeys(("attention_bias", "use_bias", "use_qkv_bias", "bias"), _QKV_BIAS),
    "attention_out_bias": _has("attn_output.bias"),
    "mlp_bias": _has("ffn_up.bias"),
    **dict.fromkeys(("qk_layernorm", "use_qk_norm"), _has("attn_q_norm.weight")),
    "use_parallel_residual": lambda values, default: values.flag("use_parallel_residual", default is True),
    "logit_scale": lambda values, _: values.number("logit_scale"),
    "clip_qkv": lambda values, _: values.optional_number("attention.clamp_kqv"),
    "attn_logit_softcapping": _softcap("attn_logit_softcapping"),
    "final_logit_softcapping": _softcap("final_logit_softcapping"),
}
"""Values of config.json that mean the same in all families, from the file and the class's default."""


def _rotated(values: GgufValues, like: ConfigClass) -> dict[str, Json]:
    """RoPE's base, and the share of a head that it turns."""
    size, whole = values.head_size, values.hidden // values.heads
    if "head_dim" not in like.defaults and size != whole:
        raise values.wrong(
            "attention.key_length", f"heads of {size} in a hidden size of {values.hidden} are not supported"
        )
    found: dict[str, Json] = {like.theta: values.number("rope.freq_base", 10000.0)}
    turned = values.integer("rope.dimension_count", size)
    if like.partial is not None:
        share = turned / size
        # The product with the head's size is cut to an integer.
        found[like.partial] = share if int(size * share) == turned else math.nextafter(share, 1)
    elif turned != size:
        raise values.wrong("rope.dimension_count", f"a rotation of a part of the head's {size} values is not supported")
    return found


def _windows(values: GgufValues, like: ConfigClass, gguf: GgufArchitecture) -> dict[str, Json]:
    """The window of attention and the layers that have it, of a family that always has the window that it names."""
    key = "attention.sliding_window"
    window = values.integer(key, gguf.window)
    if "sliding_window" not in like.defaults or "use_sliding_window" in like.defaults:
        if window:
            raise values.wrong(key, f"it is {window}, which is not supported for {values.architecture}")
        return {}
    key = "attention.sliding_window_pattern"
    if not window or "layer_types" not in like.defaults or not values.says(key):
        # The class's own rule says which layers have it, as llama.cpp's does.
        return {"sliding_window": window or None}
    pattern = values.get(key, None)
    if isinstance(pattern, int) and not isinstance(pattern, bool) and 0 < pattern < 1 << 31:
        slides = [bool((layer + 1) % pattern) for layer in range(values.layers)]
    elif isinstance(pattern, list | array) and len(pattern) == values.layers and all(one in (0, 1) for one in pattern):
        slides = [bool(one) for one in pattern]
    else:
        shown = reprlib.repr(list(pattern) if isinstance(pattern, array) else pattern)
        raise values.wrong(key, f"{shown} does not say which layers have a window")
    return {"sliding_window": window, "layer_types": [SLIDING if one else FULL for one in slides]}
