"""Arcee (AFM): Llama with an MLP without a gate, whose activation is the square of ReLU."""

from llmbuild.models import rows
from llmbuild.models.architecture import DecoderFamily
from llmbuild.models.building import attention_of, decoder_of, plain_mlp, rope_of
from llmbuild.models.config_classes import GROUPED, LLAMA, ConfigClass
from llmbuild.models.family import ModelConfig
from llmbuild.models.gguf.architecture import GgufArchitecture
from llmbuild.models.spec import BlockSpec, DecoderSpec, NormSpec

ROWS = (
    *rows.LLAMA_LIKE,
    rows.RMS_NORM_EPS,
    rows.activation("relu2"),
    rows.flag("attention_bias", False),
    rows.flag("mlp_bias", False),
)


def decoder(c: ModelConfig) -> DecoderSpec:
    norm = NormSpec("rms", c.rms_norm_eps)
    attention = attention_of(c, rope_of(c), qkv_bias=c.attention_bias, out_bias=c.attention_bias)
    mlp = plain_mlp(c, "up_proj", "down_proj", bias=c.mlp_bias)
    return decoder_of(c, BlockSpec(attention, mlp, norm, norm), norm)


DEFAULTS = LLAMA | {"hidden_act": "relu2", "max_position_embeddings": 4096, "rms_norm_eps": 1e-5}
FAMILY = DecoderFamily(
    "arcee",
    ("ArceeForCausalLM",),
    ROWS,
    decoder,
    {"arcee": ConfigClass("ArceeConfig", DEFAULTS, GROUPED)},
    gguf=GgufArchitecture("arcee", neighbours=True),
)
