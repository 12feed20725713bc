"""OLMo: Llama with LayerNorm that has no parameters, and elements of q, k and v within a bound."""

from llmbuild.models import rows
from llmbuild.models.architecture import DecoderFamily
from llmbuild.models.building import attention_of, decoder_of, rope_of
from llmbuild.models.config_classes import LLAMA, ConfigClass, without
from llmbuild.models.family import ModelConfig
from llmbuild.models.spec import BlockSpec, DecoderSpec, MlpSpec, NormSpec
from llmbuild.models.values import ACTIVATIONS

ROWS = (
    rows.VOCAB_SIZE,
    rows.HIDDEN_SIZE,
    rows.HEADS,
    rows.KV_HEADS,
    rows.HEAD_DIM,
    rows.POSITION_EMBEDDING_BASE,
    rows.ROPE_SCALING,
    rows.INTERMEDIATE_SIZE,
    rows.activation("silu"),
    rows.LAYERS,
    rows.TIED,
    rows.CONTEXT,
    rows.CHUNK,
    rows.SHARDS,
    rows.STAGES,
    rows.BATCH,
    rows.optional_number("clip_qkv"),
    rows.flag("attention_bias", False).extra(False),
)
"""MLC's fields in MLC's order, then biases, which MLC cannot express."""


def decoder(c: ModelConfig) -> DecoderSpec:
    norm = NormSpec("layer", 1e-5, weight=False)
    biases = {"qkv_bias": c.attention_bias, "out_bias": c.attention_bias}
    attention = attention_of(c, rope_of(c), clip=c.clip_qkv, **biases)
    mlp = MlpSpec(c.intermediate_size, ACTIVATIONS[c.hidden_act])
    return decoder_of(c, BlockSpec(attention, mlp, norm, norm), norm)


FAMILY = DecoderFamily(
    "olmo",
    ("OlmoForCausalLM",),
    ROWS,
    decoder,
    {
        "olmo": ConfigClass(
            "OlmoConfig",
            without(LLAMA, "mlp_bias", "rms_norm_eps") | {"clip_qkv": None},
            frozenset({"num_key_value_heads", "clip_qkv"}),
        )
    },
)
