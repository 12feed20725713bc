"""Persimmon: GPT-NeoX's packed heads with LayerNorm on each head of q and k, and an MLP of squared ReLU, with biases."""

from llmbuild.models import rows
from llmbuild.models.architecture import DecoderFamily
from llmbuild.models.building import attention_of, decoder_of, plain_mlp, rope_of
from llmbuild.models.config_classes import LLAMA, ConfigClass, without
from llmbuild.models.family import ModelConfig
from llmbuild.models.spec import BlockSpec, DecoderSpec, Names, NormSpec

ROWS = (
    *rows.standard(
        "hidden_size intermediate_size num_attention_heads num_hidden_layers vocab_size tie_word_embeddings"
    ),
    rows.WHOLE_HEAD_DIM,
    rows.rotary_share(0.5),
    rows.POSITION_EMBEDDING_BASE,
    rows.PARTIAL_ROPE_SCALING,
    *rows.standard("context_window_size prefill_chunk_size tensor_parallel_shards max_batch_size"),
    rows.number("layer_norm_eps"),
    rows.activation("relu2"),
    rows.flag("qk_layernorm", True),
)
ATTENTION = {"qkv": "query_key_value", "qkv_sources": ("query_key_value",), "stacking": "by_head", "out": "dense"}
HEADS = {"q_norm": "q_layernorm", "k_norm": "k_layernorm"}


def decoder(c: ModelConfig) -> DecoderSpec:
    norm, rope = NormSpec("layer", c.layer_norm_eps), rope_of(c, rows.rotated(c))
    biases = {"qkv_bias": True, "out_bias": True}
    attention = attention_of(c, rope, qk_norm=norm if c.qk_layernorm else None, **ATTENTION, **HEADS, **biases)
    mlp = plain_mlp(c, "dense_h_to_4h", "dense_4h_to_h", bias=True)
    names = Names(final_norm="model.final_layernorm")
    return decoder_of(c, BlockSpec(attention, mlp, norm, norm), norm, names=names)


LACKED = ("num_key_value_heads", "head_dim", "rms_norm_eps", "attention_bias", "mlp_bias")
DEFAULTS = without(LLAMA, *LACKED) | {
    "hidden_act": "relu2",
    "max_position_embeddings": 16384,
    "layer_norm_eps": 1e-5,
    "qk_layernorm": True,
}
CLASS = ConfigClass("PersimmonConfig", DEFAULTS, partial="partial_rotary_factor", default_partial=0.5)
FAMILY = DecoderFamily("persimmon", ("PersimmonForCausalLM",), ROWS, decoder, {"persimmon": CLASS})
