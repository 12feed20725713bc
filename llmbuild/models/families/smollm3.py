"""SmolLM3: Llama without RoPE in every fourth layer, or in those that the configuration lists."""

from collections.abc import Sequence

from llmbuild.models import rows
from llmbuild.models.architecture import DecoderFamily
from llmbuild.models.building import attention_of, blocks_of, decoder_of, mlp_of, rope_of
from llmbuild.models.config_classes import LLAMA, WINDOWED, ConfigClass
from llmbuild.models.family import ModelConfig
from llmbuild.models.gguf.architecture import GgufArchitecture
from llmbuild.models.layer_types import FULL, SLIDING
from llmbuild.models.spec import BlockSpec, DecoderSpec, NormSpec
from llmbuild.models.values import ConfigValues
from llmbuild.models.windows import windowed, windows_of


def _rope_layers(source: ConfigValues, layers: int) -> Sequence[bool]:
    """The layers with RoPE, which are those in transformers' list of this name."""

    def others() -> list[bool]:
        every = source.integer("no_rope_layer_interval", default=4)
        return [(layer + 1) % every != 0 for layer in range(layers)]

    return source.flags("no_rope_layers", layers, others)


def layers_without_rope(source: ConfigValues, layers: int) -> Sequence[str]:
    """Those have the window."""
    return [FULL if has_rope else SLIDING for has_rope in _rope_layers(source, layers)]


ROWS = (
    *windowed(rows.LLAMA_LIKE),
    rows.RMS_NORM_EPS,
    rows.activation("silu"),
    rows.flag("attention_bias", False),
    rows.flag("mlp_bias", False),
    rows.Row("no_rope_layers", lambda c: _rope_layers(c.source, c.num_hidden_layers)),
)


def decoder(c: ModelConfig) -> DecoderSpec:
    norm = NormSpec("rms", c.rms_norm_eps)
    mlp = mlp_of(c, bias=c.mlp_bias)
    biases = {"qkv_bias": c.attention_bias, "out_bias": c.attention_bias}
    rope = rope_of(c)

    def block(kind: tuple[bool, int | None]) -> BlockSpec:
        has_rope, window = kind
        return BlockSpec(attention_of(c, rope if has_rope else None, window=window, **biases), mlp, norm, norm)

    kinds = list(zip(c.no_rope_layers, windows_of(c), strict=True))
    return decoder_of(c, blocks_of(kinds, block), norm)


DEFAULTS = LLAMA | {
    "num_key_value_heads": 4,
    "max_position_embeddings": 32768,
    "tie_word_embeddings": True,
    "use_sliding_window": False,
    "sliding_window": None,
    "layer_types": None,
    "no_rope_layers": None,
    "no_rope_layer_interval": 4,
}
NULLABLE = WINDOWED | {"no_rope_layers"}
CLASS = ConfigClass("SmolLM3Config", DEFAULTS, NULLABLE, default_theta=2000000, layer_rule=layers_without_rope)
GGUF = GgufArchitecture("smollm3", neighbours=True)
FAMILY = DecoderFamily("smollm3", ("SmolLM3ForCausalLM",), ROWS, decoder, {"smollm3": CLASS}, gguf=GGUF)
