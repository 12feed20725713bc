"""Helium: Llama whose RoPE turns neighbouring elements; the output has no bias where q, k and v have one."""

from llmbuild.models import rows
from llmbuild.models.architecture import DecoderFamily
from llmbuild.models.building import attention_of, decoder_of, mlp_of, rope_of
from llmbuild.models.config_classes import LLAMA, ConfigClass
from llmbuild.models.family import ModelConfig
from llmbuild.models.spec import BlockSpec, DecoderSpec, NormSpec

ROWS = (
    *rows.but(rows.LLAMA_LIKE, rows.WHOLE_HEAD_DIM),
    rows.RMS_NORM_EPS,
    rows.activation("silu"),
    rows.flag("attention_bias", False),
    rows.flag("mlp_bias", False),
)


def decoder(c: ModelConfig) -> DecoderSpec:
    norm = NormSpec("rms", c.rms_norm_eps)
    attention = attention_of(c, rope_of(c, interleaved=True), qkv_bias=c.attention_bias)
    mlp = mlp_of(c, bias=c.mlp_bias)
    return decoder_of(c, BlockSpec(attention, mlp, norm, norm), norm)


DEFAULTS = LLAMA | {
    "num_key_value_heads": 20,
    "head_dim": 128,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-8,
}
FAMILY = DecoderFamily(
    "helium",
    ("HeliumForCausalLM",),
    ROWS,
    decoder,
    {"helium": ConfigClass("HeliumConfig", DEFAULTS, default_theta=100000)},
)
