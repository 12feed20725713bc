"""Mistral 7B and its fine-tunes: Llama's block, with a sliding window and attention sinks where the checkpoint has a window."""

from llmbuild.models import rows
from llmbuild.models.architecture import DecoderFamily
from llmbuild.models.building import rope_of
from llmbuild.models.config_classes import LLAMA, ConfigClass, without
from llmbuild.models.family import ModelConfig
from llmbuild.models.rolling import ROLLING_CONTEXT, SINKS, SLIDING_WINDOW
from llmbuild.models.spec import AttentionSpec, BlockSpec, DecoderSpec, MlpSpec, NormSpec
from llmbuild.models.values import ACTIVATIONS

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
    ROLLING_CONTEXT,
    SLIDING_WINDOW,
    rows.CHUNK,
    SINKS,
    rows.SHARDS,
    rows.BATCH,
    rows.TIED.extra(False),
    rows.ROPE_SCALING.extra(None),
    rows.activation("silu").extra("silu"),
)
"""MLC's fields in MLC's order, then values that MLC cannot express."""


def decoder(c: ModelConfig) -> DecoderSpec:
    norm = NormSpec("rms", c.rms_norm_eps)
    rope = rope_of(c)
    attention = AttentionSpec(c.num_attention_heads, c.num_key_value_heads, c.head_dim, rope)
    mlp = MlpSpec(c.intermediate_size, ACTIVATIONS[c.hidden_act])
    return DecoderSpec(
        c.vocab_size,
        c.hidden_size,
        (BlockSpec(attention, mlp, norm, norm),) * c.num_hidden_layers,
        norm,
        tied_head=c.tie_word_embeddings,
        rolling=c.sliding_window_size > 0,
    )


FAMILY = DecoderFamily(
    "mistral",
    ("MistralForCausalLM",),
    ROWS,
    decoder,
    {
        "mistral": ConfigClass(
            "MistralConfig",
            without(LLAMA, "attention_bias", "mlp_bias")
            | {
                "num_key_value_heads": 8,
                "max_position_embeddings": 131072,
                "sliding_window": 4096,
                "layer_types": None,
            },
            frozenset({"head_dim", "sliding_window", "layer_types"}),
        )
    },
)
