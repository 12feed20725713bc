"""The derivations that families share when they read a configuration, and the base of their classes.

One reader takes a checkpoint's config.json, which `config_json` has made explicit, and the `model_config` object of
mlc-chat-config.json; where both spell a value, `model_config`'s spelling wins, and its 0 means "not set".
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any, ClassVar

from llmbuild.canonical import Json
from llmbuild.models.frequencies import ORIGINAL, is_long, make_rope
from llmbuild.models.rope import check_scaling
from llmbuild.models.spec import DecoderSpec
from llmbuild.models.values import ConfigValues

LARGEST_LAYERS = 4096
DEFAULT_CHUNK = 8192
DEFAULT_BATCH = 128


def read_rope(
    source: ConfigValues, rotary_dim: int, context: int, *, rolling: bool = False
) -> tuple[float, Mapping[str, Json] | None]:
    """The base of RoPE, and its scaling or None, for `rotary_dim` elements of a head and a context window.

    A `rolling` cache computes RoPE itself, for two types of scaling.
    """
    theta = source.number("position_embedding_base", "rope_theta", default=10000)
    _, found = source.get("rope_scaling")
    if found is None:
        return theta, None
    if not isinstance(found, Mapping):
        raise source.error("rope_scaling", f"must be an object, not {found!r}")
    kind = found.get("rope_type", found.get("type"))
    if kind in (None, "default"):
        return theta, None
    scaling = {"rope_type": kind} | {name: value for name, value in found.items() if name != "type"}
    check_scaling(source, "rope_scaling", scaling)
    if rolling and kind != "llama3":
        raise source.error(
            "rope_scaling",
            f"of type {kind} does not work with a sliding window",
            why="a rolling cache computes RoPE itself, with scaling of type llama3 or none",
            fix="set a context-window-size within the window, or sliding-window-size = -1",
        )
    if kind == "longrope":
        _check_factors(source, scaling, rotary_dim)
    try:
        make_rope(theta, rotary_dim, scaling, context=context)
    except ArithmeticError:
        raise source.error(
            "rope_scaling",
            f"of type {kind} makes no frequencies of the base {theta}",
            why="its numbers lead to a division by zero, or to one that is too large",
            fix="correct config.json",
        ) from None
    _note_class(source, scaling, context)
    return theta, scaling


def _check_factors(source: ConfigValues, scaling: Mapping[str, Json], rotary_dim: int) -> None:
    for name in ("short_factor", "long_factor"):
        values = scaling[name]
        if isinstance(values, list | tuple) and len(values) != rotary_dim // 2:
            raise source.error(
                f"rope_scaling.{name}",
                f"has {len(values)} numbers, and {rotary_dim} rotated elements of a head need {rotary_dim // 2}",
            )


def _note_class(source: ConfigValues, scaling: Mapping[str, Json], context: int) -> None:
    """Say for which length of text the frequencies are, where transformers goes by that of each text."""
    original = scaling.get(ORIGINAL)
    if scaling["rope_type"] == "longrope":
        made = f"for texts of {'more than' if is_long(scaling, context) else 'at most'} {original} tokens"
    elif scaling["rope_type"] == "dynamic":
        made = (
            f"for a text of {context} tokens"
            if context > int(str(original))
            else f"for texts of at most {original} tokens"
        )
    else:
        return
    source.note(
        f"RoPE of type {scaling['rope_type']} is built {made}, as the context window has {context}; "
        "transformers goes by the length of each text"
    )


def read_context_window(source: ConfigValues) -> int:
    return source.integer("context_window_size", "max_position_embeddings")


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
