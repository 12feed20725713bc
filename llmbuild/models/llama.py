"""Llama: Llama 2 and 3, CodeLlama, SmolLM and everything else with the architecture LlamaForCausalLM."""

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
class LlamaConfig(FullAttention, DecoderConfig):
    """MLC's fields in MLC's order, then biases and the activation, which MLC cannot express."""

    hidden_size: int
    intermediate_size: int
    num_attention_heads: int
    num_hidden_layers: int
    rms_norm_eps: float
    vocab_size: int
    tie_word_embeddings: bool
    position_embedding_base: float
    rope_scaling: Mapping[str, Json] | None
    context_window_size: int
    prefill_chunk_size: int
    num_key_value_heads: int
    head_dim: int
    tensor_parallel_shards: int
    pipeline_parallel_stages: int
    max_batch_size: int
    disaggregation: bool
    attention_bias: bool = False
    mlp_bias: bool = False
    hidden_act: str = "silu"

    extras: ClassVar[tuple[str, ...]] = ("attention_bias", "mlp_bias", "hidden_act")

    @classmethod
    def parse(cls, source: ConfigValues) -> LlamaConfig:
        hidden, intermediate = source.integer("hidden_size"), source.integer("intermediate_size")
        layers = source.integer("num_hidden_layers", maximum=LARGEST_LAYERS)
        heads, kv_heads, head_dim = read_heads(source, hidden)
        window = read_context_window(source)
        theta, scaling = read_rope(source, head_dim, window)
        return cls(
            hidden_size=hidden,
            intermediate_size=intermediate,
            num_attention_heads=heads,
            num_hidden_layers=layers,
            rms_norm_eps=source.number("rms_norm_eps"),
            vocab_size=source.integer("vocab_size"),
            tie_word_embeddings=source.flag("tie_word_embeddings", default=False),
            position_embedding_base=theta,
            rope_scaling=scaling,
            context_window_size=window,
            prefill_chunk_size=read_chunk(source, window),
            num_key_value_heads=kv_heads,
            head_dim=head_dim,
            tensor_parallel_shards=read_shards(source, heads=heads, kv_heads=kv_heads, intermediate=intermediate),
            pipeline_parallel_stages=source.integer("pipeline_parallel_stages", default=1, maximum=layers),
            max_batch_size=source.integer("max_batch_size", default=DEFAULT_BATCH),
            disaggregation=source.flag("disaggregation", default=False),
            attention_bias=source.flag("attention_bias", default=False),
            mlp_bias=source.flag("mlp_bias", default=False),
            hidden_act=source.activation(default="silu"),
        )

    def decoder(self) -> DecoderSpec:
        norm = NormSpec("rms", self.rms_norm_eps)
        attention = AttentionSpec(
            self.num_attention_heads,
            self.num_key_value_heads,
            self.head_dim,
            make_rope(self.position_embedding_base, self.head_dim, self.rope_scaling, context=self.context_window_size),
            qkv_bias=self.attention_bias,
            out_bias=self.attention_bias,
        )
        mlp = MlpSpec(self.intermediate_size, ACTIVATIONS[self.hidden_act], bias=self.mlp_bias)
        return DecoderSpec(
            vocab_size=self.vocab_size,
            hidden_size=self.hidden_size,
            blocks=(BlockSpec(attention, mlp, norm, norm),) * self.num_hidden_layers,
            final_norm=norm,
            tied_head=self.tie_word_embeddings,
            disaggregation=self.disaggregation,
        )


FAMILY = DecoderFamily("llama", ("LlamaForCausalLM", "LLaMAForCausalLM"), LlamaConfig)
