"""GPT-BigCode (StarCoder, SantaCoder): GPT-2's block with one key-value head for all queries, or one for each."""

from dataclasses import replace

from llmbuild.models import rows
from llmbuild.models.architecture import DecoderFamily
from llmbuild.models.building import decoder_of, plain_mlp
from llmbuild.models.config_classes import ConfigClass, without
from llmbuild.models.families import gpt2
from llmbuild.models.family import ModelConfig
from llmbuild.models.gguf.architecture import GgufArchitecture
from llmbuild.models.spec import AttentionSpec, BlockSpec, DecoderSpec, NormSpec

ROWS = (
    rows.HIDDEN_SIZE,
    rows.INNER_SIZE,
    rows.HEADS,
    rows.LAYERS,
    rows.POSITIONS,
    rows.number("layer_norm_eps", default=1e-5),
    rows.VOCAB_SIZE,
    rows.POSITIONED_CONTEXT,
    *rows.standard("prefill_chunk_size tensor_parallel_shards max_batch_size"),
    rows.WHOLE_HEAD_DIM.extra(lambda c: c.hidden_size // c.num_attention_heads),
    rows.activation("gelu_pytorch_tanh").extra("gelu_pytorch_tanh"),
    rows.flag("multi_query", True).extra(True),
    rows.flag("scale_attn_weights", True).extra(True),
    rows.flag("tie_word_embeddings", True).extra(True),
)
"""MLC's fields in MLC's order, then values that MLC assumes; it computes GELU without its approximation."""
NAMES = replace(gpt2.NAMES, order=("attention", "mlp", "before_attention", "before_mlp"))


def decoder(c: ModelConfig) -> DecoderSpec:
    norm, heads = NormSpec("layer", c.layer_norm_eps), c.num_attention_heads
    attention = AttentionSpec(
        heads,
        kv_heads=1 if c.multi_query else heads,
        head_dim=c.head_dim,
        stacking="stacked" if c.multi_query else "by_head",
        qkv_bias=True,
        out_bias=True,
        scale=None if c.scale_attn_weights else 1.0,
        **gpt2.ATTENTION,
    )
    block = BlockSpec(attention, plain_mlp(c, "c_fc", "c_proj", bias=True), norm, norm)
    return decoder_of(c, block, norm, positions=c.max_position_embeddings, names=NAMES)


DEFAULTS = without(gpt2.DEFAULTS, "scale_attn_by_inverse_layer_idx") | {
    "hidden_act": "gelu_pytorch_tanh",
    "multi_query": True,
}
CLASS = ConfigClass("GPTBigCodeConfig", DEFAULTS, gpt2.CLASS.nullable, gpt2.RENAMED, rope=False)
FAMILY = DecoderFamily(
    "gpt_bigcode",
    ("GPTBigCodeForCausalLM",),
    ROWS,
    decoder,
    {"gpt_bigcode": CLASS},
    masks=gpt2.MASKS,
    keeps_head=True,
    gguf=GgufArchitecture(
        "starcoder", pre="starcoder", keys={"multi_query": lambda values: values.key_value_heads == 1}
    ),
    spelling=gpt2.FAMILY.spelling,
)
