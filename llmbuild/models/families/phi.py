"""Phi-1, 1.5 and 2: attention and a plain MLP of one LayerNorm's output, biases everywhere, RoPE on a part of each head."""

from typing import Any

from llmbuild.models import rows
from llmbuild.models.architecture import DecoderFamily
from llmbuild.models.building import attention_of, decoder_of, plain_mlp, rope_of
from llmbuild.models.config_classes import LLAMA, ConfigClass, without
from llmbuild.models.family import ModelConfig
from llmbuild.models.gguf.architecture import GgufArchitecture
from llmbuild.models.spec import BlockSpec, DecoderSpec, Names, NormSpec, RopeSpec

ROWS = (
    *rows.standard("vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads"),
    rows.number("layer_norm_eps", default=1e-5),
    rows.POSITION_EMBEDDING_BASE,
    rows.rotary_share(0.5),
    *rows.standard("num_key_value_heads context_window_size prefill_chunk_size"),
    rows.WHOLE_HEAD_DIM,
    *rows.standard("tensor_parallel_shards max_batch_size"),
    rows.PARTIAL_ROPE_SCALING.extra(None),
    rows.activation("gelu_new").extra("gelu_new"),
    rows.flag("qk_layernorm", False).extra(False),
    rows.UNTIED.extra(False),
)
"""MLC's fields in MLC's order, then values that MLC assumes."""
NAMES = Names(
    embedding="transformer.embd",
    layers="transformer.h",
    final_norm="lm_head.ln",
    head="lm_head.linear",
    before_attention="ln",
    order=("before_attention", "attention", "mlp"),
    checkpoint=(
        ("lm_head.ln", "model.final_layernorm"),
        ("lm_head.linear", "lm_head"),
        ("transformer.embd", "model.embed_tokens"),
        ("transformer.h", "model.layers"),
        (".ln.", ".input_layernorm."),
        ("mixer.out_proj", "self_attn.dense"),
        ("mixer", "self_attn"),
    ),
)


def phi_decoder(c: ModelConfig, rope: RopeSpec, names: Names, **parts: Any) -> DecoderSpec:
    """The decoder of either layout of checkpoints; `parts` are fields of AttentionSpec."""
    norm = NormSpec("layer", c.layer_norm_eps)
    attention = attention_of(c, rope, name="mixer", qkv="Wqkv", qkv_bias=True, out="out_proj", out_bias=True, **parts)
    mlp = plain_mlp(c, "fc1", "fc2", bias=True)
    block = BlockSpec(attention, mlp, norm, None, residual="parallel")
    return decoder_of(c, block, norm, head_bias=True, names=names)


def decoder(c: ModelConfig) -> DecoderSpec:
    norm = NormSpec("layer", c.layer_norm_eps) if c.qk_layernorm else None
    names = {"q_norm": "q_layernorm", "k_norm": "k_layernorm"}
    return phi_decoder(c, rope_of(c, rows.rotated(c)), NAMES, qk_norm=norm, **names)


DEFAULTS = without(LLAMA, "attention_bias", "mlp_bias", "rms_norm_eps") | {
    "hidden_act": "gelu_new",
    "layer_norm_eps": 1e-5,
    "qk_layernorm": False,
}
NULLABLE = frozenset({"num_key_value_heads"})
CLASS = ConfigClass("PhiConfig", DEFAULTS, NULLABLE, partial="partial_rotary_factor", default_partial=0.5)
FAMILY = DecoderFamily("phi", ("PhiForCausalLM",), ROWS, decoder, {"phi": CLASS}, gguf=GgufArchitecture("phi2"))
