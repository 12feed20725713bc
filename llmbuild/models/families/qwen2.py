"""Qwen 2 and 2.5: Llama's block with biases on the fused q, k, v projection, which is called c_attn."""

from dataclasses import replace

from llmbuild.models import rows
from llmbuild.models.architecture import DecoderFamily
from llmbuild.models.building import blocks_of, rope_of
from llmbuild.models.config_classes import QWEN2, WINDOWED, ConfigClass
from llmbuild.models.family import ModelConfig
from llmbuild.models.layer_types import upper_layers
from llmbuild.models.spec import AttentionSpec, BlockSpec, DecoderSpec, MlpSpec, NormSpec
from llmbuild.models.values import ACTIVATIONS
from llmbuild.models.windows import LAYER_TYPES, WINDOW, WINDOWED_CONTEXT, windows_of

ROWS = (
    rows.activation("silu"),
    rows.HIDDEN_SIZE,
    rows.INTERMEDIATE_SIZE,
    rows.HEADS,
    rows.LAYERS,
    rows.KV_HEADS,
    rows.RMS_NORM_EPS,
    rows.ROPE_THETA,
    rows.VOCAB_SIZE,
    rows.TIED,
    WINDOWED_CONTEXT,
    rows.CHUNK,
    rows.SHARDS,
    rows.HEAD_DIM,
    rows.constant("dtype", "float32"),
    rows.BATCH,
    rows.ROPE_SCALING.extra(None),
    WINDOW,
    LAYER_TYPES,
)
"""MLC's fields in MLC's order; `dtype` is the constant of MLC's dataclass before a scheme is applied."""


def decoder(c: ModelConfig) -> DecoderSpec:
    norm = NormSpec("rms", c.rms_norm_eps)
    rope = rope_of(c)
    attention = AttentionSpec(
        c.num_attention_heads, c.num_key_value_heads, c.head_dim, rope, qkv="c_attn", qkv_bias=True
    )
    mlp = MlpSpec(c.intermediate_size, ACTIVATIONS[c.hidden_act])
    blocks = blocks_of(windows_of(c), lambda window: BlockSpec(replace(attention, window=window), mlp, norm, norm))
    return DecoderSpec(c.vocab_size, c.hidden_size, blocks, norm, tied_head=c.tie_word_embeddings)


FAMILY = DecoderFamily(
    "qwen2",
    ("Qwen2ForCausalLM",),
    ROWS,
    decoder,
    {"qwen2": ConfigClass("Qwen2Config", QWEN2, WINDOWED, layer_rule=upper_layers)},
)
