"""Reading a configuration: typed access to config.json with errors that name the key, and the derivations families share.

The same reader takes a checkpoint's config.json (Hugging Face's spelling) and the `model_config` object of
mlc-chat-config.json; where both spell a value, `model_config`'s spelling wins, and its 0 means "not set".
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, ClassVar, TypeVar

from llmbuild.canonical import Json
from llmbuild.errors import InputError, Where
from llmbuild.models.spec import Activation, DecoderSpec

N = TypeVar("N", int, float)

LARGEST = (1 << 31) - 1
LARGEST_LAYERS = 4096
DEFAULT_CHUNK = 8192
DEFAULT_BATCH = 128

ACTIVATIONS: Mapping[str, Activation] = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
}
"""Hugging Face's names of activation functions; `gelu_fast` is the same tanh approximation, written differently."""


@dataclass(frozen=True, slots=True)
class ConfigValues:
    """The content of a configuration of one model type.  Every accessor raises InputError naming the key."""

    model_type: str
    values: Mapping[str, Json]

    def error(self, key: str, what: str, *, why: str | None = None, fix: str | None = None) -> InputError:
        return InputError(what, where=Where("config.json", key=key), why=why, fix=fix)

    def get(self, *names: str) -> tuple[str, Json]:
        """The first of `names` that is present and not null, with its value; (names[0], None) when none is."""
        for name in names:
            if (value := self.values.get(name)) is not None:
                return name, value
        return names[0], None

    def integer(self, *names: str, default: int | None = None, minimum: int = 1, maximum: int = LARGEST) -> int:
        """An integer in [minimum, maximum]; 0 counts as not set where `default` is given."""
        name, value = self.get(*names)
        if value is None or (value == 0 and default is not None and minimum > 0):
            return self._default(names, default)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.error(name, f"must be an integer, not {value!r}")
        if not minimum <= value <= maximum:
            raise self.error(name, f"is {value}, which is not between {minimum} and {maximum}")
        return value

    def number(self, *names: str, default: float | None = None) -> float:
        """A finite number above 0, with its own type kept (10000 stays an int, as MLC's configurations have it)."""
        name, value = self.get(*names)
        if value is None or (value == 0 and default is not None):
            return self._default(names, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value <= 0:
            raise self.error(name, f"must be a number above 0, not {value!r}")
        return value

    def flag(self, name: str, *, default: bool) -> bool:
        _, value = self.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.error(name, f"must be true or false, not {value!r}")
        return value

    def text(self, name: str, *, default: str) -> str:
        _, value = self.get(name)
        if value is None:
            return default
        if not isinstance(value, str):
            raise self.error(name, f"must be a string, not {value!r}")
        return value

    def activation(self, *, default: str, allowed: tuple[str, ...]) -> str:
        """`hidden_act` as spelled, if it is one of `allowed`."""
        name = self.text("hidden_act", default=default)
        if name not in allowed:
            known = ", ".join(allowed)
            raise self.error(
                "hidden_act", f"activation '{name}' is not supported for {self.model_type}", fix=f"one of: {known}"
            )
        return name

    def _default(self, names: tuple[str, ...], default: N | None) -> N:
        if default is None:
            spelled = " or ".join(f"'{name}'" for name in names)
            raise self.error(names[0], f"is missing: a {self.model_type} configuration needs {spelled}")
        return default


@dataclass(frozen=True, slots=True)
class Rope:
    """A configuration's RoPE: base, scaling ("llama3" or none) and the rotated share of a head, if set."""

    theta: float
    scaling: Mapping[str, Json] | None
    partial: float | None


def read_rope(source: ConfigValues, *, scalings: tuple[str, ...] = ()) -> Rope:
    """RoPE in either spelling: `rope_theta` with `rope_scaling`, or `rope_parameters` (newer transformers).

    `scalings` are the supported values of `rope_type` besides "default".
    """
    key = "rope_scaling" if source.values.get("rope_scaling") is not None else "rope_parameters"
    parameters = _rope_parameters(source)
    _, scaling = source.get("rope_scaling")
    if scaling is None:
        scaling = {
            name: value for name, value in parameters.items() if name not in ("rope_theta", "partial_rotary_factor")
        }
    if not isinstance(scaling, Mapping):
        raise source.error(key, f"must be an object, not {scaling!r}")
    theta_source = ConfigValues(
        source.model_type, {"rope_parameters.rope_theta": parameters.get("rope_theta"), **source.values}
    )
    theta = theta_source.number(
        "position_embedding_base", "rope_parameters.rope_theta", "rope_theta", "rotary_emb_base", default=10000
    )
    partial = parameters.get("partial_rotary_factor", source.values.get("partial_rotary_factor"))
    if partial is not None and (
        isinstance(partial, bool) or not isinstance(partial, (int, float)) or not 0 < partial <= 1
    ):
        raise source.error("partial_rotary_factor", f"must be a number in (0, 1], not {partial!r}")
    return Rope(theta, _scaling(source, key, scaling, scalings), partial)


def _rope_parameters(source: ConfigValues) -> Mapping[str, Json]:
    _, parameters = source.get("rope_parameters")
    if parameters is None:
        return {}
    if not isinstance(parameters, Mapping):
        raise source.error("rope_parameters", f"must be an object, not {parameters!r}")
    nested = [value for value in parameters.values() if isinstance(value, Mapping)]
    if not nested:
        return parameters
    if any(value != nested[0] for value in nested):
        raise source.error("rope_parameters", "RoPE that differs between layer types is not supported")
    return nested[0]


def _scaling(
    source: ConfigValues, key: str, scaling: Mapping[str, Json], supported: tuple[str, ...]
) -> Mapping[str, Json] | None:
    kind = scaling.get("rope_type", scaling.get("type"))
    if kind is None or kind == "default":
        return None
    if kind not in supported:
        known = ", ".join(("default", *supported))
        raise source.error(
            f"{key}.rope_type",
            f"RoPE scaling '{kind}' is not supported for {source.model_type}",
            fix=f"one of: {known}",
        )
    inner = ConfigValues(source.model_type, {f"{key}.{name}": value for name, value in scaling.items()})
    for name in ("factor", "low_freq_factor", "high_freq_factor"):
        inner.number(f"{key}.{name}")
    inner.integer(f"{key}.original_max_position_embeddings")
    if scaling["low_freq_factor"] == scaling["high_freq_factor"]:
        raise source.error(f"{key}.high_freq_factor", "must differ from low_freq_factor")
    return {"rope_type": kind} | {name: value for name, value in scaling.items() if name != "type"}


def read_context_window(source: ConfigValues) -> int:
    return source.integer("context_window_size", "max_position_embeddings", "max_sequence_length")


def read_chunk(source: ConfigValues, window: int, largest: int = DEFAULT_CHUNK) -> int:
    """MLC's rule: unset, or larger than the window, becomes min(window, largest)."""
    chunk = source.integer("prefill_chunk_size", default=min(window, largest))
    return chunk if chunk <= window else min(window, largest)


def read_heads(source: ConfigValues, hidden_size: int, default_head_dim: int | None = None) -> tuple[int, int, int]:
    """(query heads, key-value heads, head size), checked to divide each other.

    A head size that is not set is `default_head_dim`, or else the hidden size divided by the heads.
    """
    heads = source.integer("num_attention_heads")
    kv_heads = source.integer("num_key_value_heads", default=heads)
    head_dim = source.integer("head_dim", default=default_head_dim or max(hidden_size // heads, 1))
    if source.get("head_dim")[1] in (None, 0) and default_head_dim is None and hidden_size % heads:
        raise source.error("hidden_size", f"is {hidden_size}, which {heads} attention heads do not divide")
    if heads % kv_heads:
        raise source.error("num_key_value_heads", f"is {kv_heads}, which does not divide the {heads} attention heads")
    if head_dim % 2:
        raise source.error("head_dim", f"is {head_dim}, but rotary embedding needs an even head size")
    return heads, kv_heads, head_dim


def read_shards(source: ConfigValues, *, heads: int, kv_heads: int, intermediate: int) -> int:
    """`tensor_parallel_shards`, which must divide what is split: query heads, key-value heads, the MLP's inner size."""
    shards = source.integer("tensor_parallel_shards", default=1)
    split = {"attention heads": heads, "key-value heads": kv_heads, "inner MLP features": intermediate}
    for what, size in split.items():
        if size % shards:
            raise source.error("tensor_parallel_shards", f"is {shards}, which does not divide the {size} {what}")
    return shards


def reject_partial_windows(source: ConfigValues, layers: int) -> None:
    """Qwen configurations may slide a window over the upper layers only, which one KV cache cannot do."""
    sliding = source.flag("use_sliding_window", default=False)
    if sliding and source.integer("max_window_layers", default=layers, minimum=0) < layers:
        raise source.error("use_sliding_window", f"a sliding window is not supported for {source.model_type}")
    _, kinds = source.get("layer_types")
    if isinstance(kinds, (list, tuple)) and any(kind != "full_attention" for kind in kinds):
        raise source.error("layer_types", f"layers other than full_attention are not supported for {source.model_type}")


class DecoderConfig(ABC):
    """Base of the families' frozen dataclasses, whose fields are MLC's, in MLC's order.

    Fields named in `extras` are ours: `to_json` writes them only where they differ from their default, so that configurations
    that MLC can express stay exactly as MLC writes them.
    """

    extras: ClassVar[tuple[str, ...]] = ()

    @classmethod
    @abstractmethod
    def parse(cls, source: ConfigValues) -> Any:
        """From a configuration in either spelling; raises InputError."""

    @abstractmethod
    def decoder(self) -> DecoderSpec:
        """The architecture as data."""

    def to_json(self) -> dict[str, Json]:
        result: dict[str, Json] = {}
        for item in fields(self):  # type: ignore[arg-type]
            value = getattr(self, item.name)
            if item.name in self.extras and item.default is not MISSING and value == item.default:
                continue
            result[item.name] = dict(value) if isinstance(value, Mapping) else value
        return result


class FullAttention:
    """For families whose configuration has no sliding window: -1, "does not apply"."""

    @property
    def sliding_window_size(self) -> int:
        return -1

    @property
    def attention_sink_size(self) -> int:
        return -1


class OneStage:
    """For families whose configuration has neither pipeline stages nor disaggregation."""

    @property
    def pipeline_parallel_stages(self) -> int:
        return 1

    @property
    def disaggregation(self) -> bool:
        return False
