"""ChatGLM 2 and 3, CodeGeeX 2 and GLM 4 with code of its own: GLM with packed q, k, v and other names."""

from llmbuild.canonical import Json
from llmbuild.models import rows
from llmbuild.models.architecture import DecoderFamily
from llmbuild.models.building import attention_of, decoder_of, rope_of
from llmbuild.models.config_classes import ConfigClass, taken
from llmbuild.models.family import ModelConfig
from llmbuild.models.spec import BlockSpec, DecoderSpec, MlpSpec, Names, NormSpec
from llmbuild.models.values import ConfigValues

GROUPS = rows.kv_heads(default=1)
ROWS = (
    *rows.standard("hidden_size num_hidden_layers"),
    rows.integer("kv_channels", "head_dim"),
    *rows.standard("num_attention_heads intermediate_size rms_norm_eps"),
    *(rows.only(name, True) for name in ("post_layer_norm", "rmsnorm")),
    *(rows.flag(name, False) for name in ("add_bias_linear", "add_qkv_bias")),
    rows.kept("apply_query_key_layer_scaling", True),
    rows.flag("multi_query_attention", False),
    rows.Row("num_key_value_heads", lambda c: (GROUPS if c.multi_query_attention else rows.HEADS).read(c)),
    *rows.standard("vocab_size context_window_size prefill_chunk_size tensor_parallel_shards"),
    rows.WHOLE_HEAD_DIM,
    rows.BATCH,
    rows.constant("tie_word_embeddings", False).extra(False),
    rows.rotary_share(0.5).extra(0.5),
    rows.POSITION_EMBEDDING_BASE.extra(10000),
    rows.PARTIAL_ROPE_SCALING.extra(None),
)
"""MLC's fields in MLC's order, then the rotary embedding, of which MLC has another one."""
NAMES = Names(
    embedding="transformer.embedding",
    layers="transformer.encoder.layers",
    final_norm="transformer.encoder.final_layernorm",
    head="transformer.output_layer",
    checkpoint=(("transformer.embedding", "transformer.embedding.word_embeddings"),),
)


def decoder(c: ModelConfig) -> DecoderSpec:
    norm, rope = NormSpec("rms", c.rms_norm_eps), rope_of(c, rows.rotated(c), interleaved=True)
    qkv, up, down = "query_key_value", "dense_h_to_4h", "dense_4h_to_h"
    packed = {"qkv_sources": (qkv,), "stacking": "stacked" if c.multi_query_attention else "by_head"}
    biases = {"qkv_bias": c.add_bias_linear or c.add_qkv_bias, "out_bias": c.add_bias_linear}
    attention = attention_of(c, rope, name="self_attention", qkv=qkv, out="dense", **packed, **biases)
    mlp = MlpSpec(c.intermediate_size, up=up, up_sources=(up,), down=down, bias=c.add_bias_linear)
    return decoder_of(c, BlockSpec(attention, mlp, norm, norm), norm, names=NAMES)


def _rope(source: ConfigValues) -> dict[str, Json]:
    """`rope_ratio` divides positions in ChatGLM 2, and multiplies the base in its successors; vocab_size may be left out."""
    ratio = source.number("rope_ratio", default=1)
    values = {"vocab_size": source.values.get("padded_vocab_size"), **source.values}
    if "chatglm2" in str(source.values.get("_name_or_path")).lower():
        return {**values, "rope_scaling": {"rope_type": "linear", "factor": ratio}}
    if ratio != 1:
        source.note(f"config.json: rope_ratio = {ratio} multiplies the base of RoPE, as _name_or_path has no chatglm2")
    return {**values, "rope_base": 10000 * ratio}


RENAMED, TYPES = {"kv_channels": "head_dim", "seq_length": "max_position_embeddings"}, taken("default linear")
SIZES = {"num_hidden_layers": "num_layers", "intermediate_size": "ffn_hidden_size"}
SPELLING = SIZES | {"rms_norm_eps": "layernorm_epsilon", "num_key_value_heads": "multi_query_group_num"}
DEFAULTS = {"head_dim": 128, "rms_norm_eps": 1e-5, "max_position_embeddings": 2048, "num_key_value_heads": 1}
CLASS = ConfigClass(
    "ChatGLMConfig", DEFAULTS, renamed=RENAMED, theta="rope_base", rope_types=TYPES, remote=True, adapted=_rope
)
ARCHITECTURES, BUFFERS = ("ChatGLMModel", "ChatGLMForConditionalGeneration"), (".rotary_pos_emb.inv_freq",)
FAMILY = DecoderFamily(
    "chatglm", ARCHITECTURES, ROWS, decoder, {"chatglm": CLASS}, BUFFERS, head=NAMES.head_weight, spelling=SPELLING
)
