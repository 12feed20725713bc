"""Mistral 7B and its fine-tunes: Llama's block, with a sliding window and attention sinks where the checkpoint has a window."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from llmbuild.canonical import Json
from llmbuild.models.architecture import DecoderFamily
from llmbuild.models.configuration import (
    DEFAULT_BATCH,
    LARGEST_LAYERS,
    DecoderConfig,
    OneStage,
    read_chunk,
    read_context_window,
    read_heads,
    read_rope,
    read_shards,
)
from llmbuild.models.frequencies import make_rope
from llmbuild.models.spec import AttentionSpec, BlockSpec, DecoderSpec, MlpSpec, NormSpec
from llmbuild.models.values import ACTIVATIONS, ConfigValues


@dataclass(frozen=True)
class MistralConfig(OneStage, DecoderConfig):
    """MLC's fields in MLC's order, then values that MLC cannot express."""

    hidden_size: int
    intermediate_size: int
    num_attention_heads: int
    num_hidden_layers: int
    rms_norm_eps: float
    vocab_size: int
    position_embedding_base: float
    num_key_value_heads: int
    head_dim: int
    context_window_size: int
    sliding_window_size: int
    prefill_chunk_size: int
    attention_sink_size: int
    tensor_parallel_shards: int
    max_batch_size: int
    tie_word_embeddings: bool = False
    rope_scaling: Mapping[str, Json] | None = None
    hidden_act: str = "silu"

    extras: ClassVar[tuple[str, ...]] = ("tie_word_embeddings", "rope_scaling", "hidden_act")

    @classmethod
    def parse(cls, source: ConfigValues) -> MistralConfig:
        hidden, intermediate = source.integer("hidden_size"), source.integer("intermediate_size")
        heads, kv_heads, head_dim = read_heads(source, hidden)
        sliding, context, sinks = _windows(source)
        theta, scaling = read_rope(source, head_dim, context, rolling=sliding != -1)
        window = min(size for size in (sliding, context) if size != -1)
        return cls(
            hidden_size=hidden,
            intermediate_size=intermediate,
            num_attention_heads=heads,
            num_hidden_layers=source.integer("num_hidden_layers", maximum=LARGEST_LAYERS),
            rms_norm_eps=source.number("rms_norm_eps"),
            vocab_size=source.integer("vocab_size"),
            position_embedding_base=theta,
            num_key_value_heads=kv_heads,
            head_dim=head_dim,
            context_window_size=context,
            sliding_window_size=sliding,
            prefill_chunk_size=read_chunk(source, window),
            attention_sink_size=sinks,
            tensor_parallel_shards=read_shards(source, heads=heads, kv_heads=kv_heads, intermediate=intermediate),
            max_batch_size=source.integer("max_batch_size", default=DEFAULT_BATCH),
            tie_word_embeddings=source.flag("tie_word_embeddings", default=False),
            rope_scaling=scaling,
            hidden_act=source.activation(default="silu"),
        )

    def decoder(self) -> DecoderSpec:
        norm = NormSpec("rms", self.rms_norm_eps)
        attention = AttentionSpec(
            self.num_attention_heads,
            self.num_key_value_heads,
            self.head_dim,
            make_rope(self.position_embedding_base, self.head_dim, self.rope_scaling, context=self.context_window_size),
        )
        mlp = MlpSpec(self.intermediate_size, ACTIVATIONS[self.hidden_act])
        return DecoderSpec(
            vocab_size=self.vocab_size,
            hidden_size=self.hidden_size,
            blocks=(BlockSpec(attention, mlp, norm, norm),) * self.num_hidden_layers,
            final_norm=norm,
            tied_head=self.tie_word_embeddings,
            rolling=self.sliding_window_size > 0,
        )


def _windows(source: ConfigValues) -> tuple[int, int, int]:
    """(sliding window, context window, sinks), of which WebLLM takes one window and not both: the other is -1.

    A context within the sliding window never slides; a longer one means nothing, as a rolling cache has no end.
    """
    name, value = source.get("sliding_window_size", "sliding_window")
    if value == 0 and name == "sliding_window_size":
        name, value = source.get("sliding_window")
    if name == "sliding_window" and type(value) is int and value <= 0:
        raise source.error(
            name,
            f"is {value}",
            why="transformers takes it as a window of that many tokens, in which no token is seen",
            fix="correct config.json: null stands for no window",
        )
    sliding = -1 if value in (None, -1) else source.integer(name)
    sinks = source.integer("attention_sink_size", default=4, minimum=0)
    if sliding != -1 and sinks >= sliding:
        raise source.error(
            "attention_sink_size", f"is {sinks}, which does not fit into the sliding window of {sliding}"
        )
    set_context = source.values.get("context_window_size")
    if set_context == -1 and sliding == -1:
        raise source.error("context_window_size", "is -1, but the model has no sliding window either")
    if sliding != -1 and set_context in (None, 0, -1):
        return sliding, -1, sinks
    context = read_context_window(source)
    if sliding == -1 or context <= sliding:
        return -1, context, sinks
    source.note(
        f"a context window of {context} tokens is not kept, as the sliding window of {sliding} rolls on without an end; "
        f"set sliding-window-size = -1, or a context-window-size of at most {sliding}"
    )
    return sliding, -1, sinks


FAMILY = DecoderFamily("mistral", ("MistralForCausalLM",), MistralConfig)
