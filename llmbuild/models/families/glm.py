"""GLM 4 of 2024: Llama with a packed MLP, and RoPE that turns neighbouring elements of half of each head."""

from llmbuild.models import rows
from llmbuild.models.architecture import DecoderFamily
from llmbuild.models.building import attention_of, decoder_of, mlp_of, rope_of
from llmbuild.models.config_classes import LLAMA, ConfigClass, without
from llmbuild.models.family import ModelConfig
from llmbuild.models.gguf.architecture import GgufArchitecture
from llmbuild.models.spec import BlockSpec, DecoderSpec, NormSpec

ROWS = (
    *rows.but(rows.LLAMA_LIKE, rows.PARTIAL_ROPE_SCALING),
    rows.RMS_NORM_EPS,
    rows.activation("silu"),
    rows.flag("attention_bias", True),
    rows.rotary_share(0.5),
)


def block_of(c: ModelConfig, norm: NormSpec) -> BlockSpec:
    """The block of GLM, which GLM 4 of 2025 adds norms to."""
    attention = attention_of(c, rope_of(c, rows.rotated(c), interleaved=True), qkv_bias=c.attention_bias)
    mlp = mlp_of(c, up_sources=("gate_up_proj",))
    return BlockSpec(attention, mlp, norm, norm)


def decoder(c: ModelConfig) -> DecoderSpec:
    norm = NormSpec("rms", c.rms_norm_eps)
    return decoder_of(c, block_of(c, norm), norm)


DEFAULTS = without(LLAMA, "mlp_bias") | {
    "num_key_value_heads": 2,
    "head_dim": 128,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 0.00000015625,
    "attention_bias": True,
}
FAMILY = DecoderFamily(
    "glm",
    ("GlmForCausalLM",),
    ROWS,
    decoder,
    {
        "glm": ConfigClass(
            "GlmConfig",
            DEFAULTS,
            frozenset({"num_key_value_heads"}),
            partial="partial_rotary_factor",
            default_partial=0.5,
        )
    },
    gguf=GgufArchitecture("chatglm"),
)
