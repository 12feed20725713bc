"""Granite (dense): Llama's block with multipliers of the embedding, the scores, what a layer adds, and the logits."""

from llmbuild.models import rows
from llmbuild.models.architecture import DecoderFamily
from llmbuild.models.building import rope_of
from llmbuild.models.config_classes import LLAMA, ConfigClass
from llmbuild.models.family import ModelConfig
from llmbuild.models.spec import AttentionSpec, BlockSpec, DecoderSpec, MlpSpec, NormSpec
from llmbuild.models.values import ACTIVATIONS

MULTIPLIERS = ("embedding_multiplier", "attention_multiplier", "residual_multiplier", "logits_scaling")
ROWS = (
    rows.HIDDEN_SIZE,
    rows.INTERMEDIATE_SIZE,
    rows.HEADS,
    rows.LAYERS,
    rows.RMS_NORM_EPS,
    rows.VOCAB_SIZE,
    rows.TIED,
    rows.POSITION_EMBEDDING_BASE,
    rows.ROPE_SCALING,
    rows.CONTEXT,
    rows.CHUNK,
    rows.KV_HEADS,
    rows.HEAD_DIM,
    rows.SHARDS,
    rows.BATCH,
    rows.flag("attention_bias", False),
    rows.flag("mlp_bias", False),
    rows.activation("silu"),
    *(rows.number(name) for name in MULTIPLIERS),
)


def decoder(c: ModelConfig) -> DecoderSpec:
    norm = NormSpec("rms", c.rms_norm_eps)
    attention = AttentionSpec(
        c.num_attention_heads,
        c.num_key_value_heads,
        c.head_dim,
        rope_of(c),
        qkv_bias=c.attention_bias,
        out_bias=c.attention_bias,
        scale=c.attention_multiplier,
    )
    mlp = MlpSpec(c.intermediate_size, ACTIVATIONS[c.hidden_act], bias=c.mlp_bias)
    block = BlockSpec(attention, mlp, norm, norm, residual_scale=c.residual_multiplier)
    return DecoderSpec(
        c.vocab_size,
        c.hidden_size,
        (block,) * c.num_hidden_layers,
        norm,
        tied_head=c.tie_word_embeddings,
        embedding_scale=c.embedding_multiplier,
        logit_scale=1 / c.logits_scaling,
    )


DEFAULTS = LLAMA | dict.fromkeys(MULTIPLIERS, 1.0)
FAMILY = DecoderFamily(
    "granite",
    ("GraniteForCausalLM",),
    ROWS,
    decoder,
    {"granite": ConfigClass("GraniteConfig", DEFAULTS, frozenset({"num_key_value_heads"}))},
)
