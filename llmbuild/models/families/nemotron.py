"""Nemotron (3 and 4, Minitron): LayerNorm whose weight is one less, RoPE on half of each head, an MLP without a gate."""

from llmbuild.models import rows
from llmbuild.models.architecture import DecoderFamily
from llmbuild.models.building import attention_of, decoder_of, rope_of
from llmbuild.models.config_classes import GROUPED, LLAMA, ConfigClass, without
from llmbuild.models.family import ModelConfig
from llmbuild.models.spec import BlockSpec, DecoderSpec, MlpSpec, NormSpec
from llmbuild.models.values import ACTIVATIONS

ROWS = (
    rows.VOCAB_SIZE,
    rows.integer("max_position_embeddings"),
    rows.HIDDEN_SIZE,
    rows.INTERMEDIATE_SIZE,
    rows.LAYERS,
    rows.HEADS,
    rows.KV_HEADS,
    rows.ROPE_THETA,
    rows.rotary_share(0.5),
    rows.PARTIAL_ROPE_SCALING,
    rows.number("norm_eps", default=1e-5),
    rows.HEAD_DIM,
    rows.TIED,
    rows.flag("mlp_bias", False),
    rows.CONTEXT,
    rows.CHUNK,
    rows.SHARDS,
    rows.STAGES,
    rows.BATCH,
    rows.DISAGGREGATION,
    rows.flag("attention_bias", False).extra(False),
    rows.activation("relu2").extra("relu2"),
)
"""MLC's fields in MLC's order, then values that MLC cannot express."""


def decoder(c: ModelConfig) -> DecoderSpec:
    norm = NormSpec("layer", c.norm_eps, shift=1.0)
    rope = rope_of(c, rows.rotated(c))
    attention = attention_of(c, rope, qkv_bias=c.attention_bias, out_bias=c.attention_bias)
    mlp = MlpSpec(
        c.intermediate_size,
        ACTIVATIONS[c.hidden_act],
        gated=False,
        up="up_proj",
        up_sources=("up_proj",),
        bias=c.mlp_bias,
    )
    return decoder_of(c, BlockSpec(attention, mlp, norm, norm), norm, disaggregation=c.disaggregation)


DEFAULTS = without(LLAMA, "rms_norm_eps") | {"norm_eps": 1e-5, "hidden_act": "relu2", "max_position_embeddings": 4096}
FAMILY = DecoderFamily(
    "nemotron",
    ("NemotronForCausalLM",),
    ROWS,
    decoder,
    {
        "nemotron": ConfigClass(
            "NemotronConfig", DEFAULTS, GROUPED, partial="partial_rotary_factor", default_partial=0.5
        )
    },
)
