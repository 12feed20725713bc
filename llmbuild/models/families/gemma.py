"""Gemma: Llama's block with a gated GELU, norms whose weight is stored less 1, and a scaled embedding that is the head too."""

from typing import Any

from llmbuild.models import rows
from llmbuild.models.architecture import DecoderFamily
from llmbuild.models.building import attention_of, decoder_of, rope_of
from llmbuild.models.config_classes import LLAMA, ConfigClass, without
from llmbuild.models.family import ModelConfig
from llmbuild.models.gguf.architecture import GgufArchitecture
from llmbuild.models.rows import Reading, Row
from llmbuild.models.spec import AttentionSpec, BlockSpec, DecoderSpec, MlpSpec, NormSpec, RopeSpec
from llmbuild.models.values import ACTIVATIONS


def _activation(c: Reading) -> str:
    """MLC's name of it is that of later Gemmas, and the class's own is `hidden_act`."""
    key, _ = c.source.get("hidden_act", "hidden_activation")
    return c.source.activation(key, default="gelu_pytorch_tanh")


ROWS = (
    *rows.standard("hidden_size intermediate_size"),
    rows.flag("attention_bias", False),
    *rows.standard("num_attention_heads num_key_value_heads"),
    rows.head_dim(256),
    *rows.standard("num_hidden_layers rms_norm_eps vocab_size"),
    Row("hidden_activation", _activation),
    *rows.standard(
        "position_embedding_base context_window_size prefill_chunk_size tensor_parallel_shards max_batch_size"
    ),
    rows.flag("tie_word_embeddings", True).extra(True),
    rows.ROPE_SCALING.extra(None),
)
"""MLC's fields in MLC's order, then values that MLC assumes."""


def norm_of(c: ModelConfig) -> NormSpec:
    return NormSpec("rms", c.rms_norm_eps, offset=1.0)


def gemma_attention(c: ModelConfig, rope: RopeSpec, **parts: Any) -> AttentionSpec:
    return attention_of(c, rope, qkv_bias=c.attention_bias, out_bias=c.attention_bias, **parts)


def decoder(c: ModelConfig) -> DecoderSpec:
    norm = norm_of(c)
    # "gelu" in files of the first Gemma means the approximation, which the weights were trained with.
    activation = "gelu_tanh" if c.hidden_activation == "gelu" else ACTIVATIONS[c.hidden_activation]
    block = BlockSpec(gemma_attention(c, rope_of(c)), MlpSpec(c.intermediate_size, activation), norm, norm)
    return decoder_of(c, block, norm, embedding_scale=c.hidden_size**0.5)


DEFAULTS = without(LLAMA, "mlp_bias") | {
    "num_key_value_heads": 16,
    "head_dim": 256,
    "hidden_act": "gelu_pytorch_tanh",
    "max_position_embeddings": 8192,
    "tie_word_embeddings": True,
}
FAMILY = DecoderFamily(
    "gemma",
    ("GemmaForCausalLM",),
    ROWS,
    decoder,
    {"gemma": ConfigClass("GemmaConfig", DEFAULTS)},
    gguf=GgufArchitecture("gemma"),
)
