"""Orion 14B: Llama with LayerNorm."""

from llmbuild.models import rows
from llmbuild.models.architecture import DecoderFamily
from llmbuild.models.building import attention_of, decoder_of, mlp_of, rope_of
from llmbuild.models.config_classes import LLAMA, ConfigClass, taken, without
from llmbuild.models.family import ModelConfig
from llmbuild.models.gguf.architecture import GgufArchitecture
from llmbuild.models.spec import BlockSpec, DecoderSpec, NormSpec

ROWS = (
    *rows.standard(
        "hidden_size intermediate_size num_attention_heads num_hidden_layers rms_norm_eps vocab_size "
        "position_embedding_base context_window_size prefill_chunk_size num_key_value_heads"
    ),
    rows.WHOLE_HEAD_DIM,
    *rows.standard("tensor_parallel_shards max_batch_size"),
    rows.TIED.extra(False),
    rows.ROPE_SCALING.extra(None),
    rows.flag("attention_bias", False).extra(False),
    rows.activation("silu").extra("silu"),
)
"""MLC's fields in MLC's order, then values that MLC cannot express."""


def decoder(c: ModelConfig) -> DecoderSpec:
    norm = NormSpec("layer", c.rms_norm_eps)
    attention = attention_of(c, rope_of(c), qkv_bias=c.attention_bias, out_bias=c.attention_bias)
    return decoder_of(c, BlockSpec(attention, mlp_of(c), norm, norm), norm)


DEFAULTS = without(LLAMA, "mlp_bias", "head_dim") | {"max_position_embeddings": 4096, "rms_norm_eps": 1e-5}
TYPES = taken("default linear dynamic")
CLASS = ConfigClass("OrionConfig", DEFAULTS, frozenset({"num_key_value_heads"}), rope_types=TYPES, remote=True)
GGUF = GgufArchitecture("orion")
FAMILY = DecoderFamily("orion", ("OrionForCausalLM",), ROWS, decoder, {"orion": CLASS}, keeps_head=True, gguf=GGUF)
