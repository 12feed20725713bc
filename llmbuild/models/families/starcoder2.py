"""StarCoder 2: Llama's names with LayerNorm, an MLP without a gate, and biases everywhere."""

from llmbuild.models import rows
from llmbuild.models.architecture import DecoderFamily
from llmbuild.models.building import attention_of, decoder_of, plain_mlp, rope_of, windowed_blocks
from llmbuild.models.config_classes import LLAMA, ConfigClass, without
from llmbuild.models.family import ModelConfig
from llmbuild.models.gguf.architecture import GgufArchitecture
from llmbuild.models.spec import BlockSpec, DecoderSpec, NormSpec
from llmbuild.models.windows import LAYER_TYPES, WINDOW, WINDOWED_CONTEXT

ROWS = (
    *rows.standard("vocab_size hidden_size num_hidden_layers num_attention_heads num_key_value_heads"),
    rows.activation("gelu_pytorch_tanh"),
    rows.number("norm_epsilon"),
    *rows.standard("intermediate_size rope_theta"),
    rows.flag("use_bias", True),
    rows.kept("use_cache", True),
    rows.kept("bos_token_id", 50256),
    rows.kept("eos_token_id", 50256),
    WINDOWED_CONTEXT,
    *rows.standard("prefill_chunk_size tensor_parallel_shards max_batch_size head_dim"),
    rows.flag("tie_word_embeddings", True).extra(True),
    rows.ROPE_SCALING.extra(None),
    WINDOW,
    LAYER_TYPES,
)
"""MLC's fields in MLC's order, then values that MLC assumes."""


def decoder(c: ModelConfig) -> DecoderSpec:
    norm = NormSpec("layer", c.norm_epsilon)
    attention = attention_of(c, rope_of(c), qkv="wqkv_pack", qkv_bias=c.use_bias, out_bias=c.use_bias)
    mlp = plain_mlp(c, "c_fc", "c_proj", bias=c.use_bias)
    blocks = windowed_blocks(c, BlockSpec(attention, mlp, norm, norm))
    return decoder_of(c, blocks, norm, copied_head=True)


DEFAULTS = without(LLAMA, "attention_bias", "mlp_bias", "rms_norm_eps") | {
    "num_key_value_heads": 2,
    "hidden_act": "gelu_pytorch_tanh",
    "max_position_embeddings": 4096,
    "norm_epsilon": 1e-5,
    "sliding_window": None,
    "use_bias": True,
    "tie_word_embeddings": True,
}
CLASS = ConfigClass("Starcoder2Config", DEFAULTS, frozenset({"sliding_window"}))
FAMILY = DecoderFamily(
    "starcoder2",
    ("Starcoder2ForCausalLM",),
    ROWS,
    decoder,
    {"starcoder2": CLASS},
    gguf=GgufArchitecture("starcoder2", pre="starcoder"),
)
