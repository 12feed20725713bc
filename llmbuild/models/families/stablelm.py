"""StableLM 3B, 2 1.6B and 2 12B: Llama's block with LayerNorm and RoPE on a part of each head; the 12B has parallel residuals
and a LayerNorm for each head of q and k."""

from llmbuild.models import rows
from llmbuild.models.architecture import DecoderFamily
from llmbuild.models.building import attention_of, decoder_of, mlp_of, rope_of
from llmbuild.models.config_classes import LLAMA, ConfigClass, without
from llmbuild.models.family import ModelConfig
from llmbuild.models.gguf.architecture import GgufArchitecture
from llmbuild.models.spec import BlockSpec, DecoderSpec, NormSpec

ROWS = (
    *rows.standard("vocab_size hidden_size num_hidden_layers num_attention_heads num_key_value_heads"),
    rows.number("layer_norm_eps"),
    rows.rotary_share(0.25),
    *rows.standard("rope_theta intermediate_size"),
    rows.flag("use_qkv_bias", False),
    rows.WHOLE_HEAD_DIM,
    *rows.standard("context_window_size prefill_chunk_size tensor_parallel_shards max_batch_size"),
    rows.activation("silu").extra("silu"),
    rows.flag("qk_layernorm", False).extra(False),
    rows.flag("use_parallel_residual", False).extra(False),
    rows.TIED.extra(False),
    rows.PARTIAL_ROPE_SCALING.extra(None),
)
"""MLC's fields in MLC's order, then values that MLC cannot express."""


def decoder(c: ModelConfig) -> DecoderSpec:
    norm = NormSpec("layer", c.layer_norm_eps)
    attention = attention_of(
        c,
        rope_of(c, rows.rotated(c)),
        qkv_bias=c.use_qkv_bias,
        qk_norm=NormSpec("layer", c.layer_norm_eps, bias=False) if c.qk_layernorm else None,
        qk_norm_over="each_head",
        q_norm="q_layernorm",
        k_norm="k_layernorm",
    )
    mlp = mlp_of(c)
    if c.use_parallel_residual:
        block = BlockSpec(attention, mlp, norm, None, residual="parallel")
    else:
        block = BlockSpec(attention, mlp, norm, norm)
    return decoder_of(c, block, norm)


DEFAULTS = without(LLAMA, "attention_bias", "mlp_bias", "rms_norm_eps", "head_dim") | {
    "num_key_value_heads": 32,
    "max_position_embeddings": 4096,
    "layer_norm_eps": 1e-5,
    "use_qkv_bias": False,
    "qk_layernorm": False,
    "use_parallel_residual": False,
}
CLASS = ConfigClass("StableLmConfig", DEFAULTS, partial="partial_rotary_factor", default_partial=0.25)
GGUF = GgufArchitecture("stablelm", keys={"use_parallel_residual": lambda values: not values.has("ffn_norm.weight")})
FAMILY = DecoderFamily(
    "stablelm", ("StableLmForCausalLM",), ROWS, decoder, {"stablelm": CLASS}, keeps_head=True, gguf=GGUF
)
