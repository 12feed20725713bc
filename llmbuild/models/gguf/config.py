"""config.json as GGUF metadata implies it, in Hugging Face's spelling.

Keys: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.  GGUF calls Mistral "llama"; such a file is read as a Mistral
model only if its metadata has a sliding window, because the two are the same network otherwise.
"""

from __future__ import annotations

import math
import reprlib
import struct
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, overload

from llmbuild.checkpoints.tensor import TensorInfo
from llmbuild.errors import InputError, Where
from llmbuild.models.gguf.keys import NEUTRAL, OF_YARN

ARCHITECTURES = ("llama", "qwen2", "qwen3", "gptneox")

_CLASSES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "gpt_neox": "GPTNeoXForCausalLM",
}
_LARGEST = 3.4e38
"""No float32 is larger."""
_TOKENS = {"bos_token_id": "bos_token_id", "eos_token_id": "eos_token_id", "pad_token_id": "padding_token_id"}
_SAMPLING = {"temperature": "temp", "top_p": "top_p", "top_k": "top_k", "repetition_penalty": "penalty_repeat"}


def make_config(
    metadata: Mapping[str, Any], tensors: Mapping[str, TensorInfo], rope_factors: Sequence[float] | None, path: Path
) -> dict[str, Any]:
    """`rope_factors` is the content of the rope_freqs tensor, or None where there is none.

    Raises InputError for an architecture that is not one of `ARCHITECTURES`, and for metadata that is missing or not valid.
    """
    keys = _Keys(metadata, path)
    architecture = keys.architecture
    if keys.integer("expert_count", 0):
        raise keys.wrong("expert_count", "the model is a mixture of experts, which is not supported")
    for key, neutral in NEUTRAL.items():
        if (value := keys.get(key, neutral[0])) not in neutral:
            raise keys.wrong(key, f"it is {reprlib.repr(value)}, which is not supported for {architecture}")
    config = _neox(keys, tensors) if architecture == "gptneox" else _llama_like(keys, tensors)
    scaling = _rope_scaling(keys, config, rope_factors)
    if scaling is not None:
        config["rope_scaling"] = scaling
    embedding = tensors.get("token_embd.weight")
    if embedding is None or len(embedding.shape) != 2:
        raise InputError("the GGUF file has no embedding token_embd.weight", where=str(path))
    config["vocab_size"] = embedding.shape[0]
    config["tie_word_embeddings"] = "output.weight" not in tensors
    for name, key in _TOKENS.items():
        value = metadata.get(f"tokenizer.ggml.{key}")
        if isinstance(value, int):
            config[name] = value
    return config


def make_generation_config(metadata: Mapping[str, Any]) -> dict[str, Any] | None:
    """generation_config.json from the sampling values that newer files have, or None."""
    found = {name: metadata.get(f"general.sampling.{key}") for name, key in _SAMPLING.items()}
    values = {name: _shortest(value) for name, value in found.items() if isinstance(value, int | float)}
    return values or None


def _llama_like(keys: _Keys, tensors: Mapping[str, TensorInfo]) -> dict[str, Any]:
    model_type = keys.architecture
    window = keys.integer("attention.sliding_window", 0)
    if model_type == "llama" and window:
        model_type = "mistral"
    hidden, heads = _width(keys)
    groups = keys.integer("attention.head_count_kv", heads)
    if groups == 0 or heads % groups:
        raise keys.wrong("attention.head_count_kv", f"{heads} attention heads cannot share {groups}")
    head_size = keys.integer("attention.key_length", hidden // heads)
    if keys.integer("attention.value_length", head_size) != head_size:
        raise keys.wrong("attention.value_length", "keys and values of different size are not supported")
    if keys.integer("rope.dimension_count", head_size) != head_size:
        raise keys.wrong(
            "rope.dimension_count", f"a rotation of a part of the head's {head_size} values is not supported"
        )
    config: dict[str, Any] = {
        "architectures": [_CLASSES[model_type]],
        "model_type": model_type,
        "hidden_size": hidden,
        "intermediate_size": keys.integer("feed_forward_length"),
        "num_hidden_layers": keys.integer("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": groups,
        "head_dim": head_size,
        "hidden_act": "silu",
        "max_position_embeddings": keys.integer("context_length"),
        "rms_norm_eps": keys.number("attention.layer_norm_rms_epsilon"),
        "rope_theta": keys.number("rope.freq_base", 10000.0),
    }
    if model_type == "mistral":
        config["sliding_window"] = window
    if model_type in ("llama", "qwen3"):
        config["attention_bias"] = "blk.0.attn_q.bias" in tensors
    if model_type == "llama":
        config["mlp_bias"] = "blk.0.ffn_gate.bias" in tensors
    return config


def _neox(keys: _Keys, tensors: Mapping[str, TensorInfo]) -> dict[str, Any]:
    hidden, heads = _width(keys)
    parallel = keys.get("use_parallel_residual", True)
    if not isinstance(parallel, bool):
        raise keys.wrong("use_parallel_residual", f"{reprlib.repr(parallel)} is not true or false")
    return {
        "architectures": [_CLASSES["gpt_neox"]],
        "model_type": "gpt_neox",
        "hidden_size": hidden,
        "intermediate_size": keys.integer("feed_forward_length"),
        "num_hidden_layers": keys.integer("block_count"),
        "num_attention_heads": heads,
        "hidden_act": "gelu",
        "max_position_embeddings": keys.integer("context_length"),
        "layer_norm_eps": keys.number("attention.layer_norm_epsilon"),
        "rotary_pct": keys.integer("rope.dimension_count", hidden // heads) / (hidden // heads),
        "rotary_emb_base": keys.number("rope.freq_base", 10000.0),
        "use_parallel_residual": parallel,
        "attention_bias": "blk.0.attn_qkv.bias" in tensors,
    }


def _width(keys: _Keys) -> tuple[int, int]:
    """The hidden size and the number of attention heads."""
    hidden, heads = keys.integer("embedding_length"), keys.integer("attention.head_count")
    if heads > hidden:
        raise keys.wrong("attention.head_count", f"a hidden size of {hidden} cannot have {heads} heads")
    return hidden, heads


def _rope_scaling(keys: _Keys, config: Mapping[str, Any], factors: Sequence[float] | None) -> dict[str, Any] | None:
    # Where the kind is not named it is linear; where it is "none", a factor does not count.
    kind = keys.get("rope.scaling.type", "linear")
    if not isinstance(kind, str):
        raise keys.wrong("rope.scaling.type", f"{reprlib.repr(kind)} is not a name")
    name = "rope.scaling.factor"
    if keys.get(name, None) is None:
        name = "rope.scale_linear"
    # 0 is "not set".
    factor = keys.number(name) if keys.get(name, 0) != 0 else 1.0
    scaled = kind != "none" and (kind != "linear" or factor != 1.0)
    if factors is not None and any(each != 1.0 for each in factors):
        if scaled:
            raise keys.wrong("rope.scaling.type", f"it is {kind!r}, and the file has rope_freqs beside it")
        return _llama3_scaling(keys, config, factors)
    if not scaled:
        return None
    scaling: dict[str, Any] = {"rope_type": kind, "factor": factor}
    original = keys.integer("rope.scaling.original_context_length", 0)
    if original:
        scaling["original_max_position_embeddings"] = original
    return scaling | _of_yarn(keys) if kind == "yarn" else scaling


def _of_yarn(keys: _Keys) -> dict[str, float]:
    read = {}
    for key, neutral in OF_YARN.items():
        if (value := keys.get(key, None)) is None:
            continue
        if neutral is None:
            read[key.removeprefix("rope.scaling.yarn_")] = keys.number(key)
        elif value not in neutral:
            raise keys.wrong(key, f"it is {reprlib.repr(value)}, which is not supported")
    return read


def _llama3_scaling(keys: _Keys, config: Mapping[str, Any], factors: Sequence[float]) -> dict[str, Any]:
    """Llama 3's scaling from the divisors of the frequencies, which is all that GGUF keeps of it.

    Between the frequencies left alone and those divided by `factor`, 1/divisor is linear in the frequency.  The line has two
    parameters and the configuration three, of which only two matter; `low_freq_factor` is taken as 1, as all published
    models have it.  The result must reproduce the file's divisors to a relative 1e-4.
    """
    theta, count = config.get("rope_theta", 10000.0), len(factors)
    known = theta > 1 and all(1.0 <= factor < math.inf for factor in factors)
    frequencies = [theta ** (-index / count) for index in range(count)]
    factor = _shortest(max(factors))
    candidates = _llama3_candidates(frequencies, factors, factor) if known else []
    for high, original in candidates:
        scaling = {
            "rope_type": "llama3",
            "factor": factor,
            "low_freq_factor": 1.0,
            "high_freq_factor": high,
            "original_max_position_embeddings": original,
        }
        if (
            known
            and high > 1
            and all(
                math.isclose(_llama3_divisor(frequency, factor, high, original), wanted, rel_tol=1e-4)
                for frequency, wanted in zip(frequencies, factors, strict=True)
            )
        ):
            return scaling
    raise InputError(
        "the rotary frequencies of the GGUF file (rope_freqs) are of an unknown kind",
        where=str(keys.path),
        why="they are not those of Llama 3's rope scaling",
        fix="use the original weights of the model",
    )


def _llama3_candidates(frequencies: list[float], factors: Sequence[float], factor: float) -> list[tuple[float, int]]:
    """Pairs of (high_freq_factor, original context) to try, the best founded first."""
    smooth = [
        (frequency, (1 / divisor - 1 / factor) / (1 - 1 / factor))
        for frequency, divisor in zip(frequencies, factors, strict=True)
        if 1.0 + 1e-5 < divisor < factor * (1 - 1e-5)
    ]
    found: list[tuple[float, int]] = []
    if len(smooth) >= 2:
        # smooth = frequency * original / (2 pi (high - 1)) - 1 / (high - 1)
        (first, above), (last, below) = smooth[0], smooth[-1]
        slope = (above - below) / (first - last) if first != last else 0.0
        offset = first * slope - above
        # A context of 2^53 tokens or more is none, and neither is one of infinitely many.
        if offset > 1e-9 and abs(2 * math.pi * slope / offset) < 1 << 53:
            high, original = 1 + 1 / offset, round(2 * math.pi * slope / offset)
            found += [(float(round(high)), original), (high, original)]
    # A small head has few frequencies, or none, between the two ends: then 4 is assumed, which all published models have.
    found += [
        (4.0, round((3 * value + 1) * 2 * math.pi / frequency)) for frequency, value in smooth[:1] if frequency > 1e-12
    ]
    return [*found, *((4.0, 1 << power) for power in range(13, 21)), *((4.0, 1 << power) for power in range(12, 2, -1))]


def _llama3_divisor(frequency: float, factor: float, high: float, original: int) -> float:
    periods = original * frequency / (2 * math.pi)
    smooth = min(max((periods - 1) / (high - 1), 0.0), 1.0)
    return 1 / ((1 - smooth) / factor + smooth)


def _shortest(value: float) -> float:
    """A float32 as the shortest decimal that means it: 9.999999747378752e-06 was written as 1e-05."""
    if isinstance(value, int) or not math.isfinite(value) or abs(value) > _LARGEST:
        return value
    for digits in range(1, 10):
        text = float(f"{value:.{digits}g}")
        if struct.pack("<f", text) == struct.pack("<f", value):
            return text
    return value


def require_architecture(metadata: Mapping[str, Any], path: Path | None) -> str:
    """The architecture that a file's metadata name.  Raises InputError where it is not one of `ARCHITECTURES`."""
    architecture = metadata.get("general.architecture")
    if not isinstance(architecture, str) or architecture not in ARCHITECTURES:
        raise InputError(
            f"architecture {reprlib.repr(architecture)} is not supported",
            where=None if path is None else Where(str(path), key="general.architecture"),
            why=f"GGUF files of {', '.join(ARCHITECTURES)} are (Mistral is called llama there)",
        )
    return architecture


class _Keys:
    """The metadata under the architecture's prefix, with types checked."""

    def __init__(self, metadata: Mapping[str, Any], path: Path) -> None:
        self._metadata = metadata
        self.path = path
        self.architecture = require_architecture(metadata, path)

    def get(self, key: str, default: Any) -> Any:
        return self._metadata.get(f"{self.architecture}.{key}", default)

    @overload
    def integer(self, key: str) -> int: ...
    @overload
    def integer(self, key: str, default: int) -> int: ...
    def integer(self, key: str, default: int | None = None) -> int:
        """A count: positive when it must be there."""
        value = self.get(key, default)
        if value is None:
            raise self.wrong(key, "it is missing")
        if isinstance(value, array) and value and all(item == value[0] for item in value):
            value = value[0]
        if (
            isinstance(value, bool)
            or not isinstance(value, int)
            or value < (1 if default is None else 0)
            or value >= 1 << 31
        ):
            raise self.wrong(key, f"{reprlib.repr(value)} is not a possible count")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        value = self.get(key, default)
        if value is None:
            raise self.wrong(key, "it is missing")
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            raise self.wrong(key, f"{reprlib.repr(value)} is not a positive number")
        return float(_shortest(value))

    def wrong(self, key: str, why: str) -> InputError:
        return InputError(
            "the GGUF file's metadata cannot be used",
            where=Where(str(self.path), key=f"{self.architecture}.{key}"),
            why=why,
            fix="use another GGUF file or the original weights of the model",
        )
