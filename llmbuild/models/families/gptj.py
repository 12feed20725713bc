"""GPT-J: attention and MLP of one LayerNorm's output, RoPE that turns neighbouring elements of a part of each head."""

from llmbuild.models import rows
from llmbuild.models.architecture import DecoderFamily
from llmbuild.models.building import attention_of, decoder_of, plain_mlp
from llmbuild.models.config_classes import ConfigClass, without
from llmbuild.models.families import gpt2
from llmbuild.models.family import ModelConfig
from llmbuild.models.frequencies import make_rope
from llmbuild.models.spec import BlockSpec, DecoderSpec, Names, NormSpec

ROWS = (
    *rows.standard("vocab_size hidden_size num_hidden_layers num_attention_heads"),
    rows.number("layer_norm_eps", default=1e-5),
    rows.rotary_dim(64),
    rows.activation("gelu_new"),
    rows.INNER_SIZE,
    rows.constant("rope_scaling", {"rope_type": "gptj"}),
    *rows.standard("context_window_size prefill_chunk_size tensor_parallel_shards max_batch_size"),
    rows.WHOLE_HEAD_DIM,
    rows.UNTIED.extra(False),
)
"""MLC's fields in MLC's order.  Without this type of RoPE, which its preset has, MLC would turn other pairs."""
NAMES = Names(
    embedding="transformer.wte",
    layers="transformer.h",
    final_norm="transformer.ln_f",
    before_attention="ln_1",
    order=("before_attention", "attention", "mlp"),
)


def decoder(c: ModelConfig) -> DecoderSpec:
    norm, rope = NormSpec("layer", c.layer_norm_eps), make_rope(10000, c.rotary_dim, interleaved=True)
    attention = attention_of(c, rope, name="attn", qkv="c_attn", out="out_proj")
    block = BlockSpec(attention, plain_mlp(c, "fc_in", "fc_out", bias=True), norm, None, residual="parallel")
    return decoder_of(c, block, norm, head_bias=True, names=NAMES)


DEFAULTS = without(gpt2.DEFAULTS, "scale_attn_by_inverse_layer_idx", "scale_attn_weights") | {
    "max_position_embeddings": 2048,
    "rotary_dim": 64,
    "tie_word_embeddings": False,
}
CLASS = ConfigClass("GPTJConfig", DEFAULTS, gpt2.CLASS.nullable, gpt2.RENAMED, rope=False)
FAMILY = DecoderFamily(
    "gptj", ("GPTJForCausalLM",), ROWS, decoder, {"gptj": CLASS}, masks=gpt2.MASKS, spelling=gpt2.FAMILY.spelling
)
