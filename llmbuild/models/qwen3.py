"""Qwen 3 (dense): Qwen 2's names, with RMSNorm on each head of q and k and a head size of its own."""

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
    FullAttention,
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

HEAD_DIM = 128
"""transformers' default of this family, which does not depend on the hidden size."""

CHUNK = 2048
"""MLC's default prefill chunk of this family, smaller than the others'."""


@dataclass(frozen=True)
class Qwen3Config(FullAttention, OneStage, DecoderConfig):
    """MLC's fields in MLC's order; `weight_block_size` (fp8 checkpoints) is always null.

    MLC cannot express `rope_scaling`.
    """

    hidden_act: str
    hidden_size: int
    intermediate_size: int
    attention_bias: bool
    num_attention_heads: int
    num_hidden_layers: int
    num_key_value_heads: int
    rms_norm_eps: float
    rope_theta: float
    vocab_size: int
    tie_word_embeddings: bool
    context_window_size: int
    prefill_chunk_size: int
    tensor_parallel_shards: int
    head_dim: int
    dtype: str
    max_batch_size: int
    weight_block_size: None = None
    rope_scaling: Mapping[str, Json] | None = None

    extras: ClassVar[tuple[str, ...]] = ("rope_scaling",)

    @classmethod
    def parse(cls, source: ConfigValues) -> Qwen3Config:
        hidden, intermediate = source.integer("hidden_size"), source.integer("intermediate_size")
        heads, kv_heads, head_dim = read_heads(source, hidden, HEAD_DIM)
        layers = source.integer("num_hidden_layers", maximum=LARGEST_LAYERS)
        window = read_context_window(source)
        theta, scaling = read_rope(source, head_dim, window)
        return cls(
            hidden_act=source.activation(default="silu"),
            hidden_size=hidden,
            intermediate_size=intermediate,
            attention_bias=source.flag("attention_bias", default=False),
            num_attention_heads=heads,
            num_hidden_layers=layers,
            num_key_value_heads=kv_heads,
            rms_norm_eps=source.number("rms_norm_eps"),
            rope_theta=theta,
            vocab_size=source.integer("vocab_size"),
            tie_word_embeddings=source.flag("tie_word_embeddings", default=False),
            context_window_size=window,
            prefill_chunk_size=read_chunk(source, window, CHUNK),
            tensor_parallel_shards=read_shards(source, heads=heads, kv_heads=kv_heads, intermediate=intermediate),
            head_dim=head_dim,
            dtype="float32",
            max_batch_size=source.integer("max_batch_size", default=DEFAULT_BATCH),
            rope_scaling=scaling,
        )

    def decoder(self) -> DecoderSpec:
        norm = NormSpec("rms", self.rms_norm_eps)
        attention = AttentionSpec(
            self.num_attention_heads,
            self.num_key_value_heads,
            self.head_dim,
            make_rope(self.rope_theta, self.head_dim, self.rope_scaling, context=self.context_window_size),
            qkv="c_attn",
            qkv_bias=self.attention_bias,
            out_bias=self.attention_bias,
            qk_norm=norm,
        )
        mlp = MlpSpec(self.intermediate_size, ACTIVATIONS[self.hidden_act])
        return DecoderSpec(
            vocab_size=self.vocab_size,
            hidden_size=self.hidden_size,
            blocks=(BlockSpec(attention, mlp, norm, norm),) * self.num_hidden_layers,
            final_norm=norm,
            tied_head=self.tie_word_embeddings,
        )


FAMILY = DecoderFamily("qwen3", ("Qwen3ForCausalLM",), Qwen3Config)
