"""GPT-NeoX: Pythia, RedPajama-INCITE, Dolly 2, with parallel or sequential residuals and RoPE on a part of each head."""

from llmbuild.models import rows
from llmbuild.models.architecture import DecoderFamily
from llmbuild.models.building import attention_of, decoder_of, plain_mlp, rope_of
from llmbuild.models.config_classes import LLAMA, ConfigClass, without
from llmbuild.models.family import ModelConfig
from llmbuild.models.gguf.architecture import GgufArchitecture
from llmbuild.models.spec import BlockSpec, DecoderSpec, Names, NormSpec

ROWS = (
    rows.flag("use_parallel_residual", True),
    *rows.standard("hidden_size intermediate_size num_attention_heads num_hidden_layers"),
    rows.number("layer_norm_eps", default=1e-5),
    rows.VOCAB_SIZE,
    rows.rotary_share(0.25, "rotary_pct"),
    *rows.standard("position_embedding_base context_window_size"),
    rows.WHOLE_HEAD_DIM,
    *rows.standard("prefill_chunk_size tensor_parallel_shards"),
    rows.choice("ffn_out_dtype", "float32"),
    rows.BATCH,
    rows.activation("gelu").extra("gelu"),
    rows.flag("attention_bias", True).extra(True),
    rows.TIED.extra(False),
    rows.rope_scaling(lambda c: int(c.head_dim * c.rotary_pct)).extra(None),
)
"""MLC's fields in MLC's order, then values that MLC assumes."""


def decoder(c: ModelConfig) -> DecoderSpec:
    norm = NormSpec("layer", c.layer_norm_eps)
    rope = rope_of(c, int(c.head_dim * c.rotary_pct))
    biases = {"qkv_bias": c.attention_bias, "out_bias": c.attention_bias}
    qkv = "query_key_value"
    attention = attention_of(
        c, rope, name="attention", qkv=qkv, qkv_sources=(qkv,), stacking="by_head", out="dense", **biases
    )
    mlp = plain_mlp(c, "dense_h_to_4h", "dense_4h_to_h", bias=True, out_dtype=c.ffn_out_dtype)
    block = BlockSpec(attention, mlp, norm, norm, residual="parallel" if c.use_parallel_residual else "sequential")
    names = Names(
        embedding="gpt_neox.embed_in",
        layers="gpt_neox.layers",
        final_norm="gpt_neox.final_layer_norm",
        head="embed_out",
        order=("before_attention", "before_mlp", "attention", "mlp"),
    )
    return decoder_of(c, block, norm, names=names)


DEFAULTS = without(LLAMA, "num_key_value_heads", "head_dim", "rms_norm_eps", "mlp_bias") | {
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-5,
    "use_parallel_residual": True,
    "attention_bias": True,
}
CLASS = ConfigClass("GPTNeoXConfig", DEFAULTS, theta="rotary_emb_base", partial="rotary_pct", default_partial=0.25)
FAMILY = DecoderFamily(
    "gpt_neox",
    ("GPTNeoXForCausalLM",),
    ROWS,
    decoder,
    {"gpt_neox": CLASS},
    masks=(".attention.masked_bias", ".attention.bias"),
    head="embed_out.weight",
    keeps_head=True,
    gguf=GgufArchitecture("gptneox", pre="olmo"),
)
