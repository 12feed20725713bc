"""What transformers makes of a config.json: the oracle of tests of configurations.  No weights are made."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from llmbuild.models.architecture import DecoderFamily
from llmbuild.models.family import ModelConfig
from llmbuild.models.registry import families

POINTS = np.linspace(-6, 6, 49, dtype=np.float32)
_NAMES = {"silu": "silu", "gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh", "relu": "relu", "relu2": "relu2"}
_NEEDED = {"hunyuan_v1_dense": "head_dim", "nemotron": "num_key_value_heads", "glm": "num_key_value_heads"}
"""Keys that a class may leave null, and with which its model cannot be made then; what they mean is as in other classes."""


KNOWN = [
    name
    for name, item in families().items()
    if not item.spelling and not any(one.remote for one in item.classes.values())
]
"""The families that transformers has classes of, with RoPE and with names for it and for sizes that others have too."""
_ACTIVATION = ("act_fn", "act", "activation_fn")


def partial(model_type: str) -> bool:
    """Whether transformers' class rotates a part of each head."""
    return any(
        family.classes[model_type].partial is not None for family in families().values() if model_type in family.classes
    )


class NotLoaded(Exception):
    """transformers does not load the configuration, or cannot make a model of it."""


@dataclass(frozen=True)
class Reading:
    """What a model computes with, as far as a configuration decides it; frequencies, factors and windows are of each layer."""

    tensors: Mapping[str, tuple[int, ...]]
    frequencies: tuple[tuple[float, ...], ...]
    factors: tuple[float, ...]
    epsilons: frozenset[float]
    activation: tuple[float, ...]
    windows: tuple[int | None, ...]
    scale: float
    parallel: bool
    causal: bool


@cache
def _quiet() -> Any:
    import transformers

    transformers.logging.set_verbosity_error()
    return transformers


def read_by_transformers(config: Mapping[str, Any], directory: Path) -> Reading:
    """The model that AutoModelForCausalLM makes of a config.json; `directory` may hold earlier ones."""
    import torch

    transformers = _quiet()
    written = dict(config)
    windows = config.get("sliding_window", 4096) is not None
    if config["model_type"] == "exaone4" and not windows and written.get("layer_types") is None:
        # The class divides by the pattern of windows, which is 0 without one, unless the layers are named.
        written["layer_types"] = ["full_attention"] * config["num_hidden_layers"]
    needed = _NEEDED.get(config["model_type"])
    if needed is not None and written.get(needed, "" if config["model_type"] == "glm" else None) is None:
        heads = config["num_attention_heads"]
        written[needed] = heads if needed == "num_key_value_heads" else config["hidden_size"] // heads
    like = next((one for one in families().values() if config["model_type"] in one.classes), None)
    if (
        like is not None
        and "head_dim" not in like.classes[config["model_type"]].defaults
        and not written.get("head_dim", 1)
    ):
        # Its RoPE would be computed of a null that the class does not have.
        del written["head_dim"]
    (directory / "config.json").write_text(json.dumps(written))
    try:
        loaded = transformers.AutoConfig.from_pretrained(directory)
        with torch.device("meta"):
            model = transformers.AutoModelForCausalLM.from_config(loaded)
        base = model.base_model
        rotary = type(base.rotary_emb)(loaded)
        # The classes that go by the length of a text see one that fills the context.
        for kind in getattr(rotary, "layer_types", [None]):
            which = {} if kind is None else {"layer_type": kind}
            rotary(torch.zeros(1), torch.tensor([[loaded.max_position_embeddings - 1]]), **which)
        kinds = loaded.layer_types if hasattr(rotary, "layer_types") else [None] * loaded.num_hidden_layers
        frequencies, factors = zip(*(_rotation(rotary, kind) for kind in kinds), strict=True)
    except (ValueError, TypeError, KeyError, ZeroDivisionError, RuntimeError, AttributeError) as error:
        raise NotLoaded(f"{type(error).__name__}: {error}") from error
    except Exception as error:
        # The errors of strict dataclasses are of huggingface_hub.
        if "Strict" not in type(error).__name__:
            raise
        raise NotLoaded(str(error)) from error
    if not all(factors) or not np.isfinite([*np.ravel(frequencies), *factors]).all():
        raise NotLoaded("the rotation is not a rotation")
    layers = list(base.layers)
    attentions = [getattr(layer, "self_attn", None) or layer.attention for layer in layers]
    head_dim = getattr(attentions[0], "head_dim", None) or attentions[0].head_size
    pairs = len(frequencies[0])
    if pairs * 2 > head_dim or (not partial(loaded.model_type) and pairs * 2 != head_dim):
        raise NotLoaded("the frequencies do not fit the heads")
    tensors = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    if loaded.tie_word_embeddings:
        tensors = {name: shape for name, shape in tensors.items() if name not in ("lm_head.weight", "embed_out.weight")}
    sliding = loaded.sliding_window if loaded.model_type in ("mistral", "ministral3", "phi3", "starcoder2") else None
    with torch.no_grad():
        activation = next(getattr(layers[0].mlp, name) for name in _ACTIVATION if hasattr(layers[0].mlp, name))
        values = activation(torch.from_numpy(POINTS)).tolist()
    return Reading(
        tensors,
        tuple(one if rotates(attention) else () for one, attention in zip(frequencies, attentions, strict=True)),
        tuple(one if rotates(attention) else 1.0 for one, attention in zip(factors, attentions, strict=True)),
        frozenset(
            float(getattr(module, "variance_epsilon", getattr(module, "eps", 1e-5)))
            for module in model.modules()
            if "Norm" in type(module).__name__
        ),
        tuple(values),
        tuple(
            getattr(attention, "sliding_window", None) or sliding if getattr(attention, "is_sliding", True) else None
            for attention in attentions
        ),
        float(attentions[0].scaling),
        loaded.model_type in ("phi", "cohere", "cohere2")
        or (loaded.model_type in ("gpt_neox", "stablelm") and loaded.use_parallel_residual),
        bool(getattr(loaded, "is_causal", True)),
    )


def rotates(attention: Any) -> bool:
    """Whether a layer of transformers has RoPE."""
    kind, window = attention.config.model_type, getattr(attention, "sliding_window", None)
    if kind == "exaone4":
        return window is None or bool(attention.is_sliding)
    return bool(getattr(attention, "use_rope", window is not None if kind == "cohere2" else True))


def _rotation(rotary: Any, kind: str | None) -> tuple[tuple[float, ...], float]:
    """Frequencies and factor of layers of a kind, or of all where there is one RoPE."""
    prefix = "" if kind is None else f"{kind}_"
    frequencies = getattr(rotary, f"{prefix}inv_freq").double().tolist()
    return tuple(frequencies), float(getattr(rotary, f"{prefix}attention_scaling"))


def read_by_llmbuild(family: DecoderFamily, config: ModelConfig) -> Reading:
    """The same of a family's configuration."""
    import torch
    from transformers.activations import ACT2FN

    spec = family.decoder(config)
    block = spec.blocks[0]
    attention = block.attention
    ropes = [one.attention.rope for one in spec.blocks]
    tensors: dict[str, tuple[int, ...]] = {}
    for parameter in family.parameters(config):
        share = parameter.shape[0]
        for source in parameter.sources:
            tensors[source.replace("embed_out.", "lm_head.") if family.model_type == "gpt_neox" else source] = (
                share,
                *parameter.shape[1:],
            )
        if len(parameter.sources) > 1:
            sizes = _shares(parameter.sources, block, share)
            assert sum(sizes) == share
            for source, size in zip(parameter.sources, sizes, strict=True):
                tensors[source] = (size, *parameter.shape[1:])
    if family.model_type == "exaone":
        # transformers' module has Llama's names, and renames the tensors of files.
        for ours, theirs in spec.names.checkpoint:
            tensors = {name.replace(theirs, ours): shape for name, shape in tensors.items()}
    window, kinds = config.fields.get("sliding_window"), config.fields.get("layer_types")
    sliding = [kinds is None or kind == "sliding_attention" for kind in kinds or spec.blocks]
    with torch.no_grad():
        activation = ACT2FN[_NAMES[block.mlp.activation]](torch.from_numpy(POINTS)).tolist()
    epsilons = {spec.final_norm.eps} | ({attention.qk_norm.eps} if attention.qk_norm else set())
    return Reading(
        tensors,
        tuple(() if rope is None else rope.frequencies for rope in ropes),
        tuple(1.0 if rope is None else rope.factor for rope in ropes),
        frozenset(map(float, epsilons)),
        tuple(activation),
        tuple(window if slides else None for slides in sliding),
        attention.head_dim**-0.5 if attention.scale is None else attention.scale,
        block.residual == "parallel",
        True,
    )


def _shares(sources: tuple[str, ...], block: Any, rows: int) -> list[int]:
    """The rows of each source of a parameter that several make."""
    if ".norms." in sources[0]:
        return [rows // len(sources)] * len(sources)
    if len(sources) == 3:
        return [count * block.attention.head_dim for count in (block.attention.heads, *[block.attention.kv_heads] * 2)]
    return [block.mlp.intermediate] * len(sources)


def differences(product: Reading, oracle: Reading) -> list[str]:
    """What differs, in words; frequencies and activations by a relative 1e-5, as float32 loses digits in the ramps of RoPE."""
    found = []
    for name in ("tensors", "windows", "parallel", "causal"):
        ours, theirs = getattr(product, name), getattr(oracle, name)
        if ours != theirs:
            found.append(f"{name}: {ours} and {theirs}")
    if [len(one) for one in product.frequencies] != [len(one) for one in oracle.frequencies] or not all(
        np.allclose(ours, theirs, rtol=1e-5, atol=0)
        for ours, theirs in zip(product.frequencies, oracle.frequencies, strict=True)
    ):
        found.append(f"frequencies: {product.frequencies} and {oracle.frequencies}")
    if not np.allclose(product.activation, oracle.activation, rtol=1e-5, atol=1e-6):
        found.append(f"activation: {product.activation} and {oracle.activation}")
    if any(
        not np.isclose(a, b, rtol=1e-7) for a, b in zip(sorted(product.epsilons), sorted(oracle.epsilons), strict=True)
    ):
        found.append(f"epsilons: {product.epsilons} and {oracle.epsilons}")
    for name in ("scale", "factors"):
        if not np.allclose(getattr(product, name), getattr(oracle, name)):
            found.append(f"{name}: {getattr(product, name)} and {getattr(oracle, name)}")
    return found
