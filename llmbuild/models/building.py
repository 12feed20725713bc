"""What families share when they describe a decoder of a configuration."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, TypeVar

from llmbuild.models.family import ModelConfig
from llmbuild.models.frequencies import make_rope
from llmbuild.models.spec import AttentionSpec, BlockSpec, DecoderSpec, MlpSpec, NormSpec, RopeSpec
from llmbuild.models.values import ACTIVATIONS
from llmbuild.models.windows import windows_of

T = TypeVar("T", bound=Hashable)


def rope_of(c: ModelConfig, rotary_dim: int | None = None, *, interleaved: bool = False) -> RopeSpec:
    """The one RoPE of a configuration, of whole heads unless a number of elements is given."""
    theta = c.fields.get("position_embedding_base", c.fields.get("rope_theta"))
    size = c.head_dim if rotary_dim is None else rotary_dim
    return make_rope(theta, size, c.rope_scaling, context=c.context_window_size, interleaved=interleaved)


def local_rope_of(c: ModelConfig) -> RopeSpec:
    """The RoPE of the layers with a window, where they have one of their own."""
    return make_rope(c.rope_local_base_freq, c.head_dim)


def blocks_of(kinds: Sequence[T], block: Callable[[T], BlockSpec]) -> tuple[BlockSpec, ...]:
    """One block for each layer's kind; layers of one kind share the object."""
    make = cache(block)
    return tuple(make(kind) for kind in kinds)


def windowed_blocks(c: ModelConfig, block: BlockSpec) -> tuple[BlockSpec, ...]:
    """A block for each layer, with the window that the layer has."""
    return blocks_of(windows_of(c), lambda window: replace(block, attention=replace(block.attention, window=window)))


def local_blocks(
    c: ModelConfig, block: BlockSpec, local: RopeSpec | None, everywhere: RopeSpec | None
) -> tuple[BlockSpec, ...]:
    """As `windowed_blocks`, with one RoPE for the layers of `local_layers` and another for those that see all."""

    def make(kind: tuple[bool, int | None]) -> BlockSpec:
        is_local, window = kind
        rope = local if is_local else everywhere
        return replace(block, attention=replace(block.attention, rope=rope, window=window))

    return blocks_of(list(zip(c.local_layers, windows_of(c), strict=True)), make)


def attention_of(c: ModelConfig, rope: RopeSpec | None, **parts: Any) -> AttentionSpec:
    """Attention with a configuration's heads, in groups where it has them; `parts` are other fields of AttentionSpec."""
    kv_heads = c.fields.get("num_key_value_heads", c.num_attention_heads)
    return AttentionSpec(c.num_attention_heads, kv_heads, c.head_dim, rope, **parts)


def mlp_of(c: ModelConfig, **parts: Any) -> MlpSpec:
    """A gated MLP with a configuration's size and activation; `parts` are other fields of MlpSpec."""
    activation = c.fields.get("hidden_act", c.fields.get("hidden_activation"))
    return MlpSpec(c.intermediate_size, ACTIVATIONS[activation], **parts)


def plain_mlp(c: ModelConfig, up: str, down: str, **parts: Any) -> MlpSpec:
    """An MLP without a gate, of projections with these names."""
    return mlp_of(c, gated=False, up=up, up_sources=(up,), down=down, **parts)


def decoder_of(c: ModelConfig, block: BlockSpec | Sequence[BlockSpec], norm: NormSpec, **parts: Any) -> DecoderSpec:
    """A decoder of a configuration's sizes, of one block for all layers or one each; `parts` are other fields of DecoderSpec."""
    blocks = (block,) * c.num_hidden_layers if isinstance(block, BlockSpec) else tuple(block)
    return DecoderSpec(c.vocab_size, c.hidden_size, blocks, norm, tied_head=c.tie_word_embeddings, **parts)
