"""Qwen 3 (dense): Qwen 2's names, with RMSNorm on each head of q and k and a head size of its own."""

from llmbuild.models import rows
from llmbuild.models.architecture import DecoderFamily
from llmbuild.models.building import attention_of, decoder_of, mlp_of, rope_of, windowed_blocks
from llmbuild.models.config_classes import QWEN2, WINDOWED, ConfigClass, without
from llmbuild.models.family import ModelConfig
from llmbuild.models.gguf.architecture import GgufArchitecture
from llmbuild.models.layer_types import upper_layers
from llmbuild.models.spec import BlockSpec, DecoderSpec, NormSpec
from llmbuild.models.windows import LAYER_TYPES, WINDOW, WINDOWED_CONTEXT

ROWS = (
    rows.activation("silu"),
    *rows.standard("hidden_size intermediate_size"),
    rows.flag("attention_bias", False),
    *rows.standard(
        "num_attention_heads num_hidden_layers num_key_value_heads rms_norm_eps rope_theta vocab_size "
        "tie_word_embeddings"
    ),
    WINDOWED_CONTEXT,
    rows.chunk(2048),
    rows.SHARDS,
    rows.head_dim(128),
    rows.constant("dtype", "float32"),
    rows.BATCH,
    rows.constant("weight_block_size", None),
    rows.ROPE_SCALING.extra(None),
    WINDOW,
    LAYER_TYPES,
)
"""MLC's fields in MLC's order; `weight_block_size` is of fp8 checkpoints, and MLC's default prefill chunk is a smaller one."""


def decoder(c: ModelConfig) -> DecoderSpec:
    norm = NormSpec("rms", c.rms_norm_eps)
    biases = {"qkv_bias": c.attention_bias, "out_bias": c.attention_bias}
    attention = attention_of(c, rope_of(c), qkv="c_attn", qk_norm=norm, **biases)
    return decoder_of(c, windowed_blocks(c, BlockSpec(attention, mlp_of(c), norm, norm)), norm)


DEFAULTS = QWEN2 | {"head_dim": 128, "attention_bias": False}
CLASS = ConfigClass("Qwen3Config", DEFAULTS, WINDOWED, layer_rule=upper_layers)
UNUSED = frozenset({"rope.dimension_sections", "n_deepstack_layers"})
GGUF = GgufArchitecture("qwen3", pre="qwen2", others=("qwen3vl",), unused=UNUSED)
LACKED = ("use_sliding_window", "sliding_window", "max_window_layers", "layer_types", "tie_word_embeddings")
VL = without(DEFAULTS, *LACKED) | {"max_position_embeddings": 128000}
TEXT_OF_VL = ConfigClass("Qwen3VLTextConfig", VL, frozenset({"num_key_value_heads"}), default_theta=500000)
CLASSES = {"qwen3": CLASS, "qwen3_vl_text": TEXT_OF_VL}
FAMILY = DecoderFamily("qwen3", ("Qwen3ForCausalLM",), ROWS, decoder, CLASSES, gguf=GGUF)
