"""Gemma 3's text models: Gemma 2 with RMSNorm on each head of q and k, and a RoPE of its own for the layers with a window."""

from llmbuild.models import rows
from llmbuild.models.architecture import DecoderFamily
from llmbuild.models.building import decoder_of, local_blocks, local_rope_of, mlp_of, rope_of
from llmbuild.models.config_classes import ConfigClass, without
from llmbuild.models.families import gemma, gemma2
from llmbuild.models.family import ModelConfig
from llmbuild.models.gguf.architecture import GgufArchitecture, Reader
from llmbuild.models.layer_types import all_but_each
from llmbuild.models.rows import Row
from llmbuild.models.spec import BlockSpec, DecoderSpec, Names
from llmbuild.models.windows import WINDOW, WINDOWED_CONTEXT, layer_types, local_layers
from llmbuild.models.wrappers import TEXT_OF

UNUSED = "attn_logit_softcapping"
"""A key of transformers' class that its attention does not use; a value of it is refused, and what is published has none."""
ALL_BUT_EACH_SIXTH = all_but_each(6, "sliding_window_pattern")


TEXT = (
    *rows.standard("hidden_size intermediate_size num_hidden_layers"),
    rows.flag("attention_bias", False),
    *rows.standard("num_attention_heads num_key_value_heads"),
    rows.head_dim(256),
    rows.RMS_NORM_EPS,
    rows.activation("gelu_pytorch_tanh", "hidden_activation"),
    rows.POSITION_EMBEDDING_BASE,
    rows.ROPE_SCALING,
    rows.number("query_pre_attn_scalar", default=256),
    WINDOW,
    layer_types(ALL_BUT_EACH_SIXTH),
    rows.number("rope_local_base_freq", default=10000),
    local_layers(ALL_BUT_EACH_SIXTH),
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
NAMES = Names(
    embedding="language_model.model.embed_tokens",
    layers="language_model.model.layers",
    final_norm="language_model.model.norm",
    head="language_model.lm_head",
    after_attention=gemma2.NAMES.after_attention,
    before_mlp=gemma2.NAMES.before_mlp,
    after_mlp=gemma2.NAMES.after_mlp,
    checkpoint=(("language_model.", ""),),
)


def decoder(c: ModelConfig) -> DecoderSpec:
    norm = gemma.norm_of(c)
    rope, scale = rope_of(c), c.query_pre_attn_scalar**-0.5
    attention = gemma.gemma_attention(c, rope, qk_norm=norm, scale=scale, joined=False)
    block = BlockSpec(attention, mlp_of(c), norm, norm, norm, norm)
    return decoder_of(
        c,
        local_blocks(c, block, local_rope_of(c), rope),
        norm,
        embedding_scale=c.hidden_size**0.5,
        logit_softcap=c.final_logit_softcapping,
        names=NAMES,
    )


DEFAULTS = without(gemma2.DEFAULTS, UNUSED) | {
    "max_position_embeddings": 131072,
    "final_logit_softcapping": None,
    "num_attention_heads": 8,
    "vocab_size": 262208,
}
"""Of two sizes too, which files of Gemma 3 4B leave out."""
GGUF_KEYS: dict[str, Reader] = {
    "query_pre_attn_scalar": lambda values: gemma2.query_scalar(values, largest=62),
    "rope_local_base_freq": lambda values: values.number("rope.freq_base_swa", 10000.0),
    # Without one llama.cpp uses the other RoPE in all layers, as no model that is published does.
    "sliding_window": lambda values: values.integer("attention.sliding_window"),
}
FAMILY = DecoderFamily(
    "gemma3_text",
    ("Gemma3ForCausalLM",),
    ROWS,
    decoder,
    {
        "gemma3_text": ConfigClass(
            "Gemma3TextConfig",
            DEFAULTS,
            gemma2.NULLABLE - {UNUSED},
            default_theta=1000000,
            ropes_by_layer=True,
            local_theta="rope_local_base_freq",
            layer_rule=ALL_BUT_EACH_SIXTH,
        )
    },
    gguf=GgufArchitecture("gemma3", keys=GGUF_KEYS),
)
