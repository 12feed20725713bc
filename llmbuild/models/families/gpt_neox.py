"""GPT-NeoX: Pythia, RedPajama-INCITE, Dolly 2, with parallel or sequential residuals and RoPE on a part of each head."""

from llmbuild.models import rows
from llmbuild.models.architecture import DecoderFamily
from llmbuild.models.building import rope_of
from llmbuild.models.config_classes import ConfigClass
from llmbuild.models.family import ModelConfig
from llmbuild.models.spec import AttentionSpec, BlockSpec, DecoderSpec, MlpSpec, Names, NormSpec
from llmbuild.models.values import ACTIVATIONS

ROWS = (
    rows.flag("use_parallel_residual", True),
    rows.HIDDEN_SIZE,
    rows.INTERMEDIATE_SIZE,
    rows.HEADS,
    rows.LAYERS,
    rows.number("layer_norm_eps", default=1e-5),
    rows.VOCAB_SIZE,
    rows.rotary_share(0.25, "rotary_pct"),
    rows.POSITION_EMBEDDING_BASE,
    rows.CONTEXT,
    rows.WHOLE_HEAD_DIM,
    rows.CHUNK,
    rows.SHARDS,
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
    attention = AttentionSpec(
        c.num_attention_heads,
        c.num_attention_heads,
        c.head_dim,
        rope_of(c, int(c.head_dim * c.rotary_pct)),
        name="attention",
        qkv="query_key_value",
        qkv_sources=("query_key_value",),
        stacking="by_head",
        qkv_bias=c.attention_bias,
        out="dense",
        out_bias=c.attention_bias,
    )
    mlp = MlpSpec(
        c.intermediate_size,
        ACTIVATIONS[c.hidden_act],
        gated=False,
        up="dense_h_to_4h",
        up_sources=("dense_h_to_4h",),
        down="dense_4h_to_h",
        bias=True,
        out_dtype=c.ffn_out_dtype,
    )
    block = BlockSpec(attention, mlp, norm, norm, residual="parallel" if c.use_parallel_residual else "sequential")
    names = Names(
        embedding="gpt_neox.embed_in",
        layers="gpt_neox.layers",
        final_norm="gpt_neox.final_layer_norm",
        head="embed_out",
        order=("before_attention", "before_mlp", "attention", "mlp"),
    )
    blocks = (block,) * c.num_hidden_layers
    return DecoderSpec(c.vocab_size, c.hidden_size, blocks, norm, tied_head=c.tie_word_embeddings, names=names)


FAMILY = DecoderFamily(
    "gpt_neox",
    ("GPTNeoXForCausalLM",),
    ROWS,
    decoder,
    {
        "gpt_neox": ConfigClass(
            "GPTNeoXConfig",
            {
                "hidden_act": "gelu",
                "max_position_embeddings": 2048,
                "layer_norm_eps": 1e-5,
                "tie_word_embeddings": False,
                "use_parallel_residual": True,
                "attention_bias": True,
            },
            theta="rotary_emb_base",
            partial="rotary_pct",
            default_partial=0.25,
        )
    },
    masks=(".attention.masked_bias", ".attention.bias"),
    head="embed_out.weight",
)
