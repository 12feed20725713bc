"""EXAONE 4 without windows (1.2B): Llama with norms after attention and MLP only, and RMSNorm on each head of q and k."""

from llmbuild.models import rows
from llmbuild.models.architecture import DecoderFamily
from llmbuild.models.building import attention_of, decoder_of, mlp_of, rope_of
from llmbuild.models.config_classes import LLAMA, ConfigClass, without
from llmbuild.models.family import ModelConfig
from llmbuild.models.gguf.architecture import GgufArchitecture
from llmbuild.models.rows import Reading, Row
from llmbuild.models.spec import BlockSpec, DecoderSpec, Names, NormSpec
from llmbuild.models.values import shown


def _no_window(c: Reading) -> None:
    window = c.source.values.get("sliding_window")
    if window is not None:
        raise c.source.error(
            "sliding_window",
            f"is {shown(window)}, which is not supported for {c.source.model_type}",
            why="layers without a window have no RoPE then, which is not built yet",
            fix="choose another checkpoint",
        )


ROWS = (
    *rows.LLAMA_LIKE,
    rows.RMS_NORM_EPS,
    rows.activation("silu"),
    Row("sliding_window", _no_window).extra(None),
)


def decoder(c: ModelConfig) -> DecoderSpec:
    norm = NormSpec("rms", c.rms_norm_eps)
    attention = attention_of(c, rope_of(c), qk_norm=norm)
    mlp = mlp_of(c)
    block = BlockSpec(attention, mlp, None, None, after_attention=norm, after_mlp=norm)
    names = Names(after_attention="post_attention_layernorm", after_mlp="post_feedforward_layernorm")
    return decoder_of(c, block, norm, names=names)


DEFAULTS = without(LLAMA, "attention_bias", "mlp_bias") | {
    "num_key_value_heads": 32,
    "rms_norm_eps": 1e-5,
    "sliding_window": 4096,
}
FAMILY = DecoderFamily(
    "exaone4",
    ("Exaone4ForCausalLM",),
    ROWS,
    decoder,
    {"exaone4": ConfigClass("Exaone4Config", DEFAULTS, frozenset({"sliding_window"}))},
    gguf=GgufArchitecture("exaone4"),
)
