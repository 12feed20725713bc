"""EXAONE 4: Llama with norms after attention and MLP only, RMSNorm on each head of q and k, and windows with RoPE.

Where there are windows, three layers of four have them, and the layers that see all have no RoPE.
"""

from llmbuild.models import rows
from llmbuild.models.architecture import DecoderFamily
from llmbuild.models.building import attention_of, decoder_of, local_blocks, mlp_of, rope_of
from llmbuild.models.config_classes import LLAMA, ConfigClass, without
from llmbuild.models.family import ModelConfig
from llmbuild.models.gguf.architecture import GgufArchitecture
from llmbuild.models.layer_types import all_but_each
from llmbuild.models.spec import BlockSpec, DecoderSpec, Names, NormSpec
from llmbuild.models.windows import local_layers, windowed

ALL_BUT_EACH_FOURTH = all_but_each(4, "sliding_window_pattern")
ROWS = (
    *windowed(rows.LLAMA_LIKE),
    rows.RMS_NORM_EPS,
    rows.activation("silu"),
    local_layers(ALL_BUT_EACH_FOURTH),
)
NAMES = Names(after_attention="post_attention_layernorm", after_mlp="post_feedforward_layernorm")


def decoder(c: ModelConfig) -> DecoderSpec:
    norm = NormSpec("rms", c.rms_norm_eps)
    rope = rope_of(c)
    block = BlockSpec(attention_of(c, rope, qk_norm=norm), mlp_of(c), None, None, norm, norm)
    return decoder_of(c, local_blocks(c, block, rope, None), norm, names=NAMES)


DEFAULTS = without(LLAMA, "attention_bias", "mlp_bias") | {
    "num_key_value_heads": 32,
    "rms_norm_eps": 1e-5,
    "sliding_window": 4096,
    "sliding_window_pattern": 4,
    "layer_types": None,
}
NULLABLE = frozenset({"sliding_window", "sliding_window_pattern", "layer_types"})
CLASS = ConfigClass("Exaone4Config", DEFAULTS, NULLABLE, layer_rule=ALL_BUT_EACH_FOURTH, without_window=True)
FAMILY = DecoderFamily(
    "exaone4", ("Exaone4ForCausalLM",), ROWS, decoder, {"exaone4": CLASS}, gguf=GgufArchitecture("exaone4")
)
