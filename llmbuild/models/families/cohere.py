"""Cohere (Command R, Aya): attention and MLP of one LayerNorm without bias, and logits times a scale."""

from typing import Any

from llmbuild.models import rows
from llmbuild.models.architecture import DecoderFamily
from llmbuild.models.building import attention_of, decoder_of, mlp_of, rope_of
from llmbuild.models.config_classes import LLAMA, ConfigClass, without
from llmbuild.models.family import ModelConfig
from llmbuild.models.gguf.architecture import GgufArchitecture
from llmbuild.models.rows import Reading, Row
from llmbuild.models.spec import BlockSpec, DecoderSpec, Names, NormSpec, RopeSpec


def _logit_scale(c: Reading) -> float:
    """A null is no number, though transformers fails with one only when it computes."""
    return c.source.number("logit_scale", default=None if "logit_scale" in c.source.values else 0.0625)


ROWS = (
    *rows.standard(
        "hidden_size vocab_size num_hidden_layers num_attention_heads num_key_value_heads intermediate_size"
    ),
    rows.number("layer_norm_eps"),
    *rows.standard(
        "position_embedding_base context_window_size prefill_chunk_size head_dim tensor_parallel_shards max_batch_size"
    ),
    rows.flag("tie_word_embeddings", True).extra(True),
    rows.ROPE_SCALING.extra(None),
    rows.activation("silu").extra("silu"),
    rows.flag("attention_bias", False).extra(False),
    rows.flag("use_qk_norm", False).extra(False),
    Row("logit_scale", _logit_scale).extra(0.0625),
)
"""MLC's fields in MLC's order, then values that MLC cannot express; it computes without the scale of the logits."""


NAMES = Names(checkpoint=(("out_proj", "o_proj"),))


def norm_of(c: ModelConfig) -> NormSpec:
    """The LayerNorm of all places."""
    return NormSpec("layer", c.layer_norm_eps, bias=False)


def block_of(c: ModelConfig, rope: RopeSpec, **parts: Any) -> BlockSpec:
    """A layer; `parts` are other fields of its attention."""
    biases = {"qkv_bias": c.attention_bias, "out_bias": c.attention_bias}
    attention = attention_of(c, rope, out="out_proj", **biases, **parts)
    return BlockSpec(attention, mlp_of(c, joined=False), norm_of(c), None, residual="parallel")


def decoder(c: ModelConfig) -> DecoderSpec:
    norm = norm_of(c)
    rope = rope_of(c, interleaved=True)
    block = block_of(c, rope, qk_norm=norm if c.use_qk_norm else None, qk_norm_over="each_row")
    return decoder_of(c, block, norm, logit_scale=c.logit_scale, names=NAMES)


DEFAULTS = without(LLAMA, "mlp_bias", "rms_norm_eps") | {
    "layer_norm_eps": 1e-5,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": True,
    "logit_scale": 0.0625,
    "use_qk_norm": False,
}
NULLABLE = frozenset({"num_key_value_heads", "layer_norm_eps", "logit_scale", "use_qk_norm"})
FAMILY = DecoderFamily(
    "cohere",
    ("CohereForCausalLM",),
    ROWS,
    decoder,
    {"cohere": ConfigClass("CohereConfig", DEFAULTS, NULLABLE, default_theta=500000)},
    gguf=GgufArchitecture("command-r", pre="command-r"),
)
