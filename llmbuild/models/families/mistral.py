"""Mistral 7B and its fine-tunes: Llama's block, with a window where the checkpoint has one; Ministral 8B, where layers differ."""

from dataclasses import replace

from llmbuild.models import rows
from llmbuild.models.architecture import DecoderFamily
from llmbuild.models.building import blocks_of, rope_of
from llmbuild.models.config_classes import LLAMA, ConfigClass, without
from llmbuild.models.family import ModelConfig
from llmbuild.models.spec import AttentionSpec, BlockSpec, DecoderSpec, MlpSpec, NormSpec
from llmbuild.models.values import ACTIVATIONS
from llmbuild.models.windows import LAYER_TYPES, SINKS, SLIDING_WINDOW_SIZE, WINDOW, WINDOWED_CONTEXT, windows_of

ROWS = (
    rows.HIDDEN_SIZE,
    rows.INTERMEDIATE_SIZE,
    rows.HEADS,
    rows.LAYERS,
    rows.RMS_NORM_EPS,
    rows.VOCAB_SIZE,
    rows.POSITION_EMBEDDING_BASE,
    rows.KV_HEADS,
    rows.HEAD_DIM,
    WINDOWED_CONTEXT,
    SLIDING_WINDOW_SIZE,
    rows.CHUNK,
    SINKS,
    rows.SHARDS,
    rows.BATCH,
    rows.TIED.extra(False),
    rows.ROPE_SCALING.extra(None),
    rows.activation("silu").extra("silu"),
    WINDOW,
    LAYER_TYPES,
)
"""MLC's fields in MLC's order, then values that MLC cannot express."""


def decoder(c: ModelConfig) -> DecoderSpec:
    norm = NormSpec("rms", c.rms_norm_eps)
    rope = rope_of(c)
    mlp = MlpSpec(c.intermediate_size, ACTIVATIONS[c.hidden_act])
    attention = AttentionSpec(c.num_attention_heads, c.num_key_value_heads, c.head_dim, rope)
    blocks = blocks_of(windows_of(c), lambda window: BlockSpec(replace(attention, window=window), mlp, norm, norm))
    return DecoderSpec(
        c.vocab_size,
        c.hidden_size,
        blocks,
        norm,
        tied_head=c.tie_word_embeddings,
        rolling=c.sliding_window_size > 0,
    )


DEFAULTS = without(LLAMA, "attention_bias", "mlp_bias") | {
    "num_key_value_heads": 8,
    "max_position_embeddings": 131072,
    "sliding_window": 4096,
    "layer_types": None,
}
NULLABLE = frozenset({"head_dim", "sliding_window", "layer_types"})
FAMILY = DecoderFamily(
    "mistral",
    ("MistralForCausalLM", "MinistralForCausalLM"),
    ROWS,
    decoder,
    {
        "mistral": ConfigClass("MistralConfig", DEFAULTS, NULLABLE),
        "ministral": ConfigClass("MinistralConfig", DEFAULTS, NULLABLE - {"head_dim"}),
    },
)
