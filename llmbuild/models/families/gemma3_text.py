"""Gemma 3's text models: Gemma 2 with RMSNorm on each head of q and k, and a RoPE of its own for the layers with a window."""

from typing import Any

from llmbuild.models import rows
from llmbuild.models.architecture import DecoderFamily
from llmbuild.models.building import decoder_of, local_blocks, local_rope_of, mlp_of, rope_of
from llmbuild.models.config_classes import ConfigClass, without
from llmbuild.models.families import gemma, gemma2
from llmbuild.models.family import ModelConfig
from llmbuild.models.gguf.architecture import GgufArchitecture, Reader
from llmbuild.models.layer_types import all_but_each
from llmbuild.models.rows import Row
from llmbuild.models.spec import BlockSpec, DecoderSpec
from llmbuild.models.windows import WINDOW, WINDOWED_CONTEXT, layer_types, local_layers
from llmbuild.models.wrappers import TEXT_OF

UNUSED = "attn_logit_softcapping"
"""A key of transformers' class that its attention does not use; a value of it is refused, and what is published has none."""
EACH_SIXTH = all_but_each(6, "sliding_window_pattern")
TEXT = (
    *rows.standard("hidden_size intermediate_size num_hidden_layers"),
    rows.flag("attention_bias", False),
    *rows.standard("num_attention_heads num_key_value_heads"),
    rows.head_dim(256),
    rows.RMS_NORM_EPS,
    rows.activation("gelu_pytorch_tanh", "hidden_activation"),
    *rows.standard("position_embedding_base rope_scaling"),
    rows.number("query_pre_attn_scalar", default=256),
    WINDOW,
    layer_types(EACH_SIXTH),
    rows.number("rope_local_base_freq", default=10000),
    local_layers(EACH_SIXTH),
    rows.optional_number("final_logit_softcapping").extra(None),
    rows.flag("tie_word_embeddings", True).extra(True),
)
ROWS = (
    *rows.in_text_config(TEXT),
    *rows.standard("vocab_size tensor_parallel_shards max_batch_size"),
    WINDOWED_CONTEXT,
    rows.CHUNK,
    Row("is_text_model", lambda c: c.source.flag("is_text_model", default=TEXT_OF not in c.source.values)),
)
"""MLC's fields, in an object of their own as MLC has them, and what MLC leaves out: the other RoPE, and which layers have it."""
NAMES = gemma2.NAMES.below("language_model.")


def decoder(c: ModelConfig) -> DecoderSpec:
    norm, rope, scale = gemma.norm_of(c), rope_of(c), c.query_pre_attn_scalar**-0.5
    attention = gemma.gemma_attention(c, rope, qk_norm=norm, scale=scale, joined=False)
    block = BlockSpec(attention, mlp_of(c), norm, norm, norm, norm)
    blocks = local_blocks(c, block, local_rope_of(c), rope)
    scales = {"embedding_scale": c.hidden_size**0.5, "logit_softcap": c.final_logit_softcapping}
    return decoder_of(c, blocks, norm, names=NAMES, **scales)


SIZES = {"num_attention_heads": 8, "vocab_size": 262208}
"""Those that files of Gemma 3 4B leave out."""
OWN = SIZES | {"max_position_embeddings": 131072, "final_logit_softcapping": None}
DEFAULTS = without(gemma2.DEFAULTS, UNUSED) | OWN
GGUF_KEYS: dict[str, Reader] = {
    "query_pre_attn_scalar": lambda values: gemma2.query_scalar(values, largest=62),
    "rope_local_base_freq": lambda values: values.number("rope.freq_base_swa", 10000.0),
    # Without one llama.cpp uses the other RoPE in all layers, as no model that is published does.
    "sliding_window": lambda values: values.integer("attention.sliding_window"),
}
ROPES: dict[str, Any] = {"ropes_by_layer": True, "local_theta": "rope_local_base_freq"}
CLASS = ConfigClass(
    "Gemma3TextConfig", DEFAULTS, gemma2.NULLABLE - {UNUSED}, default_theta=1000000, layer_rule=EACH_SIXTH, **ROPES
)
GGUF = GgufArchitecture("gemma3", keys=GGUF_KEYS)
FAMILY = DecoderFamily("gemma3_text", ("Gemma3ForCausalLM",), ROWS, decoder, {"gemma3_text": CLASS}, gguf=GGUF)
