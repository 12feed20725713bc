"""Granite (dense): Llama's block with multipliers of the embedding, the scores, what a layer adds, and the logits."""

from llmbuild.models import rows
from llmbuild.models.architecture import DecoderFamily
from llmbuild.models.building import attention_of, decoder_of, mlp_of, rope_of
from llmbuild.models.config_classes import LLAMA, ConfigClass
from llmbuild.models.family import ModelConfig
from llmbuild.models.gguf.architecture import GgufArchitecture, Reader
from llmbuild.models.gguf.values import GgufValues
from llmbuild.models.spec import BlockSpec, DecoderSpec, NormSpec, RopeSpec

MULTIPLIERS = ("embedding_multiplier", "attention_multiplier", "residual_multiplier", "logits_scaling")
ROWS = (
    *rows.LLAMA_LIKE,
    rows.RMS_NORM_EPS,
    rows.flag("attention_bias", False),
    rows.flag("mlp_bias", False),
    rows.activation("silu"),
    *(rows.number(name) for name in MULTIPLIERS),
)


def block_of(c: ModelConfig, rope: RopeSpec, norm: NormSpec, after: NormSpec | None = None) -> BlockSpec:
    """A layer; `after` normalizes what attention and MLP give."""
    biases = {"qkv_bias": c.attention_bias, "out_bias": c.attention_bias}
    attention = attention_of(c, rope, scale=c.attention_multiplier, **biases)
    mlp = mlp_of(c, bias=c.mlp_bias)
    return BlockSpec(attention, mlp, norm, norm, after, after, residual_scale=c.residual_multiplier)


def decoder(c: ModelConfig) -> DecoderSpec:
    norm = NormSpec("rms", c.rms_norm_eps)
    block = block_of(c, rope_of(c), norm)
    return decoder_of(c, block, norm, embedding_scale=c.embedding_multiplier, logit_scale=1 / c.logits_scaling)


DEFAULTS = LLAMA | dict.fromkeys(MULTIPLIERS, 1.0)


def _attention_multiplier(values: GgufValues) -> float:
    if not values.flag("rope.scaling.finetuned", True):
        raise values.wrong(
            "rope.scaling.finetuned", "it is false, which means no RoPE and is not supported for granite"
        )
    return values.optional_number("attention.scale") or values.head_size**-0.5


GGUF_KEYS: dict[str, Reader] = {
    "embedding_multiplier": lambda values: values.optional_number("embedding_scale") or 1.0,
    "attention_multiplier": _attention_multiplier,
    "residual_multiplier": lambda values: values.optional_number("residual_scale") or 1.0,
    "logits_scaling": lambda values: values.number("logit_scale"),
}
CLASS = ConfigClass("GraniteConfig", DEFAULTS, frozenset({"num_key_value_heads"}))
GGUF = GgufArchitecture("granite", neighbours=True, keys=GGUF_KEYS)
FAMILY = DecoderFamily("granite", ("GraniteForCausalLM",), ROWS, decoder, {"granite": CLASS}, gguf=GGUF)
