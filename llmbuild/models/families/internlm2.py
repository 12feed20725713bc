"""InternLM 2 and 2.5: Llama with other names, and q, k and v in one tensor, the queries of a key-value head before it."""

from llmbuild.models import rows
from llmbuild.models.architecture import DecoderFamily
from llmbuild.models.building import attention_of, decoder_of, mlp_of, rope_of
from llmbuild.models.config_classes import LLAMA, ConfigClass, taken, without
from llmbuild.models.family import ModelConfig
from llmbuild.models.gguf.architecture import GgufArchitecture
from llmbuild.models.spec import BlockSpec, DecoderSpec, Names, NormSpec

ROWS = (
    *rows.standard(
        "vocab_size hidden_size num_hidden_layers num_attention_heads num_key_value_heads rms_norm_eps intermediate_size"
    ),
    rows.flag("bias", True),
    rows.kept("use_cache", True),
    rows.ROPE_THETA,
    *rows.token_ids(pad=0, bos=1, eos=2),
    rows.CONTEXT,
    rows.chunk(2048),
    *rows.standard("tensor_parallel_shards max_batch_size"),
    rows.WHOLE_HEAD_DIM,
    rows.TIED.extra(False),
    rows.ROPE_SCALING.extra(None),
    rows.activation("silu").extra("silu"),
)
"""MLC's fields in MLC's order, then values that MLC cannot express."""
NAMES = Names(embedding="model.tok_embeddings", head="output", before_attention="attention_norm", before_mlp="ffn_norm")


def decoder(c: ModelConfig) -> DecoderSpec:
    norm = NormSpec("rms", c.rms_norm_eps)
    packed = {"qkv": "wqkv", "qkv_sources": ("wqkv",), "stacking": "by_group", "out": "wo"}
    attention = attention_of(c, rope_of(c), name="attention", qkv_bias=c.bias, out_bias=c.bias, **packed)
    mlp = mlp_of(c, name="feed_forward", up_sources=("w1", "w3"), down="w2")
    return decoder_of(c, BlockSpec(attention, mlp, norm, norm), norm, names=NAMES)


DEFAULTS = without(LLAMA, "attention_bias", "mlp_bias", "head_dim") | {"bias": True}
TYPES = taken("default linear dynamic")
CLASS = ConfigClass("InternLM2Config", DEFAULTS, frozenset({"num_key_value_heads"}), rope_types=TYPES, remote=True)
FAMILY = DecoderFamily(
    "internlm2",
    ("InternLM2ForCausalLM",),
    ROWS,
    decoder,
    {"internlm2": CLASS},
    head="output.weight",
    keeps_head=True,
    gguf=GgufArchitecture("internlm2", neighbours=True),
)
