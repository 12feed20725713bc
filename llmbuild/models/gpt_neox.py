"""GPT-NeoX: Pythia, RedPajama-INCITE, Dolly 2, with parallel or sequential residuals and RoPE on a part of each head."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

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
from llmbuild.models.spec import AttentionSpec, BlockSpec, DecoderSpec, MlpSpec, Names, NormSpec
from llmbuild.models.values import ACTIVATIONS, ConfigValues

NAMES = Names(
    embedding="gpt_neox.embed_in",
    layers="gpt_neox.layers",
    final_norm="gpt_neox.final_layer_norm",
    head="embed_out",
    order=("before_attention", "before_mlp", "attention", "mlp"),
)


@dataclass(frozen=True)
class GptNeoxConfig(FullAttention, OneStage, DecoderConfig):
    """MLC's fields in MLC's order, then values that MLC assumes."""

    use_parallel_residual: bool
    hidden_size: int
    intermediate_size: int
    num_attention_heads: int
    num_hidden_layers: int
    layer_norm_eps: float
    vocab_size: int
    rotary_pct: float
    position_embedding_base: float
    context_window_size: int
    head_dim: int
    prefill_chunk_size: int
    tensor_parallel_shards: int
    ffn_out_dtype: Literal["float32"] | None
    max_batch_size: int
    hidden_act: str = "gelu"
    attention_bias: bool = True
    tie_word_embeddings: bool = False
    rope_scaling: Mapping[str, Json] | None = None

    extras: ClassVar[tuple[str, ...]] = ("hidden_act", "attention_bias", "tie_word_embeddings", "rope_scaling")

    @classmethod
    def parse(cls, source: ConfigValues) -> GptNeoxConfig:
        hidden, intermediate = source.integer("hidden_size"), source.integer("intermediate_size")
        heads, _, head_dim = read_heads(source, hidden)
        if heads * head_dim != hidden:
            raise source.error(
                "num_attention_heads", f"{heads} heads of {head_dim} do not make the hidden size {hidden}"
            )
        rotary = source.number("rotary_pct", default=0.25)
        if rotary > 1 or int(head_dim * rotary) % 2 or int(head_dim * rotary) == 0:
            raise source.error(
                "rotary_pct", f"is {rotary}, which does not make an even part of the head size {head_dim}"
            )
        if source.text("ffn_out_dtype", default="float32") != "float32":
            raise source.error("ffn_out_dtype", "must be float32")
        window = read_context_window(source)
        theta, scaling = read_rope(source, int(head_dim * rotary), window)
        return cls(
            use_parallel_residual=source.flag("use_parallel_residual", default=True),
            hidden_size=hidden,
            intermediate_size=intermediate,
            num_attention_heads=heads,
            num_hidden_layers=source.integer("num_hidden_layers", maximum=LARGEST_LAYERS),
            layer_norm_eps=source.number("layer_norm_eps", default=1e-5),
            vocab_size=source.integer("vocab_size"),
            rotary_pct=rotary,
            position_embedding_base=theta,
            context_window_size=window,
            head_dim=head_dim,
            prefill_chunk_size=read_chunk(source, window),
            tensor_parallel_shards=read_shards(source, heads=heads, kv_heads=heads, intermediate=intermediate),
            ffn_out_dtype="float32",
            max_batch_size=source.integer("max_batch_size", default=DEFAULT_BATCH),
            hidden_act=source.activation(default="gelu"),
            attention_bias=source.flag("attention_bias", default=True),
            tie_word_embeddings=source.flag("tie_word_embeddings", default=False),
            rope_scaling=scaling,
        )

    def decoder(self) -> DecoderSpec:
        norm = NormSpec("layer", self.layer_norm_eps)
        attention = AttentionSpec(
            self.num_attention_heads,
            self.num_attention_heads,
            self.head_dim,
            make_rope(
                self.position_embedding_base,
                int(self.head_dim * self.rotary_pct),
                self.rope_scaling,
                context=self.context_window_size,
            ),
            name="attention",
            qkv="query_key_value",
            qkv_sources=("query_key_value",),
            stacking="by_head",
            qkv_bias=self.attention_bias,
            out="dense",
            out_bias=self.attention_bias,
        )
        mlp = MlpSpec(
            self.intermediate_size,
            activation=ACTIVATIONS[self.hidden_act],
            gated=False,
            up="dense_h_to_4h",
            up_sources=("dense_h_to_4h",),
            down="dense_4h_to_h",
            bias=True,
            out_dtype=self.ffn_out_dtype,
        )
        residual: Literal["parallel", "sequential"] = "parallel" if self.use_parallel_residual else "sequential"
        return DecoderSpec(
            vocab_size=self.vocab_size,
            hidden_size=self.hidden_size,
            blocks=(BlockSpec(attention, mlp, norm, norm, residual=residual),) * self.num_hidden_layers,
            final_norm=norm,
            tied_head=self.tie_word_embeddings,
            names=NAMES,
        )


FAMILY = DecoderFamily(
    "gpt_neox",
    ("GPTNeoXForCausalLM",),
    GptNeoxConfig,
    masks=(".attention.masked_bias", ".attention.bias"),
    head="embed_out.weight",
)
