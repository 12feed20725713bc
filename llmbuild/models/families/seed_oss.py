"""Seed-OSS: Llama with a head size of its own, and biases of q, k, v apart from that of the output."""

from llmbuild.models import rows
from llmbuild.models.architecture import DecoderFamily
from llmbuild.models.building import attention_of, decoder_of, mlp_of, rope_of
from llmbuild.models.config_classes import GROUPED, LLAMA, ConfigClass
from llmbuild.models.family import ModelConfig
from llmbuild.models.gguf.architecture import GgufArchitecture
from llmbuild.models.spec import BlockSpec, DecoderSpec, NormSpec

ROWS = (
    *rows.LLAMA_LIKE,
    rows.RMS_NORM_EPS,
    rows.activation("silu"),
    rows.flag("attention_bias", True),
    rows.flag("attention_out_bias", False),
    rows.flag("mlp_bias", False),
)


def decoder(c: ModelConfig) -> DecoderSpec:
    norm = NormSpec("rms", c.rms_norm_eps)
    attention = attention_of(c, rope_of(c), qkv_bias=c.attention_bias, out_bias=c.attention_out_bias)
    mlp = mlp_of(c, bias=c.mlp_bias)
    return decoder_of(c, BlockSpec(attention, mlp, norm, norm), norm)


DEFAULTS = LLAMA | {
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 524288,
    "attention_bias": True,
    "attention_out_bias": False,
}
FAMILY = DecoderFamily(
    "seed_oss",
    ("SeedOssForCausalLM",),
    ROWS,
    decoder,
    {"seed_oss": ConfigClass("SeedOssConfig", DEFAULTS, GROUPED)},
    gguf=GgufArchitecture("seed_oss", before_mlp="post_attention_norm"),
)
