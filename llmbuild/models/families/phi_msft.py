"""Phi-1.5 and 2 as their own code has them, before transformers had a class: q, k and v in one tensor, and other names."""

from dataclasses import replace

from llmbuild.models import rows
from llmbuild.models.architecture import DecoderFamily
from llmbuild.models.config_classes import ConfigClass
from llmbuild.models.families import gpt2, phi
from llmbuild.models.family import ModelConfig
from llmbuild.models.frequencies import make_rope
from llmbuild.models.spec import DecoderSpec

ROWS = (
    rows.constant("model_type", "phi-msft"),
    rows.VOCAB_SIZE,
    rows.POSITIONS,
    rows.HIDDEN_SIZE,
    rows.LAYERS,
    rows.INNER_SIZE,
    rows.HEADS,
    rows.rotary_dim(32),
    rows.POSITION_EMBEDDING_BASE,
    rows.number("layer_norm_eps", default=1e-5),
    *rows.standard("context_window_size prefill_chunk_size num_key_value_heads"),
    rows.WHOLE_HEAD_DIM,
    rows.SHARDS,
    rows.BATCH.extra(rows.DEFAULT_BATCH),
    rows.activation("gelu_new").extra("gelu_new"),
    rows.UNTIED.extra(False),
)
"""MLC's fields in MLC's order, then values that MLC assumes."""
NAMES = replace(phi.NAMES, checkpoint=(("transformer.embd", "transformer.embd.wte"),))


def decoder(c: ModelConfig) -> DecoderSpec:
    rope = make_rope(c.position_embedding_base, c.rotary_dim)
    return phi.phi_decoder(c, rope, NAMES, qkv_sources=("Wqkv",))


DEFAULTS = {
    "intermediate_size": None,
    "num_key_value_heads": None,
    "max_position_embeddings": 2048,
    "rotary_dim": 32,
    "hidden_act": "gelu_new",
    "layer_norm_eps": 1e-5,
    "tie_word_embeddings": False,
}
CLASS = ConfigClass(
    "PhiConfig",
    DEFAULTS,
    frozenset({"intermediate_size", "num_key_value_heads"}),
    gpt2.RENAMED,
    rope=False,
    remote=True,
)
FAMILY = DecoderFamily(
    "phi-msft",
    ("PhiForCausalLM",),
    ROWS,
    decoder,
    {"phi-msft": CLASS},
    head="lm_head.linear.weight",
    spelling={**gpt2.FAMILY.spelling, "num_key_value_heads": "n_head_kv"},
)
