"""ERNIE 4.5 (dense): Llama whose RoPE turns neighbouring elements, with one key for all biases."""

from llmbuild.models import rows
from llmbuild.models.architecture import DecoderFamily
from llmbuild.models.building import attention_of, decoder_of, mlp_of, rope_of
from llmbuild.models.config_classes import GROUPED, LLAMA, ConfigClass, without
from llmbuild.models.family import ModelConfig
from llmbuild.models.gguf.architecture import GgufArchitecture
from llmbuild.models.spec import BlockSpec, DecoderSpec, NormSpec

ROWS = (*rows.LLAMA_LIKE, rows.RMS_NORM_EPS, rows.activation("silu"), rows.flag("use_bias", False))


def decoder(c: ModelConfig) -> DecoderSpec:
    norm = NormSpec("rms", c.rms_norm_eps)
    rope = rope_of(c, interleaved=True)
    attention = attention_of(c, rope, qkv_bias=c.use_bias, out_bias=c.use_bias)
    mlp = mlp_of(c, bias=c.use_bias)
    return decoder_of(c, BlockSpec(attention, mlp, norm, norm), norm)


DEFAULTS = without(LLAMA, "attention_bias", "mlp_bias") | {
    "num_key_value_heads": 2,
    "head_dim": 128,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
    "use_bias": False,
}
FAMILY = DecoderFamily(
    "ernie4_5",
    ("Ernie4_5ForCausalLM", "Ernie4_5_ForCausalLM"),
    ROWS,
    decoder,
    {"ernie4_5": ConfigClass("Ernie4_5Config", DEFAULTS, GROUPED | {"use_bias"}, default_theta=500000)},
    gguf=GgufArchitecture("ernie4_5"),
)
