"""Qwen 2 and 2.5: Llama's block with biases on the fused q, k, v projection, which is called c_attn."""

from typing import Any

from llmbuild.models import rows
from llmbuild.models.architecture import DecoderFamily
from llmbuild.models.building import attention_of, decoder_of, mlp_of, rope_of, windowed_blocks
from llmbuild.models.config_classes import MROPE, QWEN2, QWEN2_VL, WINDOWED, ConfigClass
from llmbuild.models.family import ModelConfig
from llmbuild.models.gguf.architecture import GgufArchitecture
from llmbuild.models.layer_types import upper_layers
from llmbuild.models.spec import BlockSpec, DecoderSpec, NormSpec
from llmbuild.models.windows import LAYER_TYPES, WINDOW, WINDOWED_CONTEXT

ROWS = (
    rows.activation("silu"),
    *rows.standard(
        "hidden_size intermediate_size num_attention_heads num_hidden_layers num_key_value_heads rms_norm_eps "
        "rope_theta vocab_size tie_word_embeddings"
    ),
    WINDOWED_CONTEXT,
    *rows.standard("prefill_chunk_size tensor_parallel_shards head_dim"),
    rows.constant("dtype", "float32"),
    rows.BATCH,
    rows.ROPE_SCALING.extra(None),
    WINDOW,
    LAYER_TYPES,
)
"""MLC's fields in MLC's order; `dtype` is the constant of MLC's dataclass before a scheme is applied."""


def decoder(c: ModelConfig) -> DecoderSpec:
    norm = NormSpec("rms", c.rms_norm_eps)
    attention = attention_of(c, rope_of(c), qkv="c_attn", qkv_bias=True)
    return decoder_of(c, windowed_blocks(c, BlockSpec(attention, mlp_of(c), norm, norm)), norm)


VL: dict[str, Any] = {"default_theta": 1000000, "rope_types": MROPE, "layer_rule": upper_layers}
VL_NULLABLE = WINDOWED | {"use_sliding_window", "max_window_layers"}
CLASSES = {
    "qwen2": ConfigClass("Qwen2Config", QWEN2, WINDOWED, layer_rule=upper_layers),
    "qwen2_vl_text": ConfigClass("Qwen2VLTextConfig", QWEN2_VL, VL_NULLABLE, **VL),
    "qwen2_5_vl_text": ConfigClass("Qwen2_5_VLTextConfig", QWEN2_VL, VL_NULLABLE, **VL),
}
GGUF = GgufArchitecture("qwen2", pre="qwen2", others=("qwen2vl",), unused=frozenset({"rope.dimension_sections"}))
FAMILY = DecoderFamily("qwen2", ("Qwen2ForCausalLM",), ROWS, decoder, CLASSES, gguf=GGUF)
