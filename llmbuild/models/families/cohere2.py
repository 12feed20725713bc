"""Cohere 2 (Command R7B, Command A): Cohere with a window and RoPE in three layers of four, and neither in the others."""

from llmbuild.models.architecture import DecoderFamily
from llmbuild.models.building import decoder_of, local_blocks, rope_of
from llmbuild.models.config_classes import ConfigClass, without
from llmbuild.models.families import cohere
from llmbuild.models.family import ModelConfig
from llmbuild.models.gguf.architecture import GgufArchitecture
from llmbuild.models.layer_types import all_but_each
from llmbuild.models.spec import DecoderSpec
from llmbuild.models.windows import local_layers, windowed

ALL_BUT_EACH_FOURTH = all_but_each(4, "sliding_window_pattern")
ROWS = (
    *windowed([row for row in cohere.ROWS if row.name != "use_qk_norm"]),
    local_layers(ALL_BUT_EACH_FOURTH),
)


def decoder(c: ModelConfig) -> DecoderSpec:
    rope = rope_of(c, interleaved=True)
    blocks = local_blocks(c, cohere.block_of(c, rope), rope, None)
    return decoder_of(c, blocks, cohere.norm_of(c), logit_scale=c.logit_scale, names=cohere.NAMES)


DEFAULTS = without(cohere.DEFAULTS, "use_qk_norm") | {"sliding_window": 4096, "layer_types": None}
NULLABLE = frozenset({"num_key_value_heads", "sliding_window", "layer_types"})
CLASS = ConfigClass("Cohere2Config", DEFAULTS, NULLABLE, layer_rule=ALL_BUT_EACH_FOURTH, without_window=False)
GGUF = GgufArchitecture("cohere2", pre="command-r")
FAMILY = DecoderFamily("cohere2", ("Cohere2ForCausalLM",), ROWS, decoder, {"cohere2": CLASS}, gguf=GGUF)
