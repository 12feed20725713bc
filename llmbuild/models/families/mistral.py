"""Mistral 7B and its fine-tunes: Llama's block, with a window where the checkpoint has one; Ministral 8B, where layers differ."""

from llmbuild.models import rows
from llmbuild.models.architecture import DecoderFamily
from llmbuild.models.building import attention_of, decoder_of, rope_of, windowed_blocks
from llmbuild.models.config_classes import LLAMA, ConfigClass, without
from llmbuild.models.family import ModelConfig
from llmbuild.models.spec import BlockSpec, DecoderSpec, MlpSpec, NormSpec
from llmbuild.models.values import ACTIVATIONS
from llmbuild.models.windows import LAYER_TYPES, SINKS, SLIDING_WINDOW_SIZE, WINDOW, WINDOWED_CONTEXT

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
    attention = attention_of(c, rope_of(c))
    mlp = MlpSpec(c.intermediate_size, ACTIVATIONS[c.hidden_act])
    blocks = windowed_blocks(c, BlockSpec(attention, mlp, norm, norm))
    return decoder_of(c, blocks, norm, rolling=c.sliding_window_size > 0)


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
