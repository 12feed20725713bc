"""Hunyuan (dense): Llama with RMSNorm on each head of q and k after RoPE, whose base has a fixed factor."""

from llmbuild.models import rows
from llmbuild.models.architecture import DecoderFamily
from llmbuild.models.building import attention_of, decoder_of, mlp_of, rope_of
from llmbuild.models.config_classes import LLAMA, ConfigClass, without
from llmbuild.models.family import ModelConfig
from llmbuild.models.gguf.architecture import GgufArchitecture
from llmbuild.models.spec import BlockSpec, DecoderSpec, NormSpec

ROWS = (*rows.LLAMA_LIKE, rows.RMS_NORM_EPS, rows.activation("silu"), rows.flag("attention_bias", False))


def decoder(c: ModelConfig) -> DecoderSpec:
    norm = NormSpec("rms", c.rms_norm_eps)
    attention = attention_of(
        c,
        rope_of(c),
        qkv_bias=c.attention_bias,
        out_bias=c.attention_bias,
        qk_norm=norm,
        qk_norm_after_rope=True,
        q_norm="query_layernorm",
        k_norm="key_layernorm",
    )
    mlp = mlp_of(c)
    return decoder_of(c, BlockSpec(attention, mlp, norm, norm), norm)


FAMILY = DecoderFamily(
    "hunyuan_v1_dense",
    ("HunYuanDenseV1ForCausalLM",),
    ROWS,
    decoder,
    {
        "hunyuan_v1_dense": ConfigClass(
            "HunYuanDenseV1Config",
            without(LLAMA, "mlp_bias") | {"rms_norm_eps": 1e-5},
            frozenset({"num_key_value_heads"}),
            ntk_alpha=True,
        )
    },
    gguf=GgufArchitecture("hunyuan-dense"),
)
