"""Gemma 2: Gemma with norms on both sides of attention and MLP, a window in every other layer, and capped scores and logits."""

from llmbuild.models import rows
from llmbuild.models.architecture import DecoderFamily
from llmbuild.models.building import decoder_of, mlp_of, rope_of, windowed_blocks
from llmbuild.models.config_classes import ConfigClass, without
from llmbuild.models.families import gemma
from llmbuild.models.family import ModelConfig
from llmbuild.models.gguf.architecture import GgufArchitecture
from llmbuild.models.gguf.values import GgufValues
from llmbuild.models.layer_types import all_but_each
from llmbuild.models.spec import BlockSpec, DecoderSpec, Names
from llmbuild.models.windows import WINDOW, WINDOWED_CONTEXT, layer_types

ALTERNATING = all_but_each(2)
OWN = (
    rows.optional_number("attn_logit_softcapping"),
    rows.optional_number("final_logit_softcapping"),
    rows.number("query_pre_attn_scalar", default=256),
    WINDOW,
)
CHANGED = (rows.activation("gelu_pytorch_tanh", "hidden_activation"), WINDOWED_CONTEXT)
ROWS = (*rows.but(gemma.ROWS, *CHANGED), *OWN, layer_types(ALTERNATING))
"""MLC's fields, whose context is the window; MLC does not cap scores."""
NAMES = Names(
    after_attention="post_attention_layernorm",
    before_mlp="pre_feedforward_layernorm",
    after_mlp="post_feedforward_layernorm",
)


def decoder(c: ModelConfig, *, norms_after: bool = True) -> DecoderSpec:
    """With norms of what attention and MLP give, or without (VaultGemma)."""
    norm = gemma.norm_of(c)
    after, mlp = norm if norms_after else None, mlp_of(c)
    scale, softcap = c.query_pre_attn_scalar**-0.5, c.attn_logit_softcapping
    attention = gemma.gemma_attention(c, rope_of(c), scale=scale, softcap=softcap)
    return decoder_of(
        c,
        windowed_blocks(c, BlockSpec(attention, mlp, norm, norm, after, after)),
        norm,
        embedding_scale=c.hidden_size**0.5,
        logit_softcap=c.final_logit_softcapping,
        names=NAMES,
    )


DEFAULTS = without(gemma.DEFAULTS, "hidden_act") | {
    "num_key_value_heads": 4,
    "hidden_activation": "gelu_pytorch_tanh",
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
    "layer_types": None,
    "final_logit_softcapping": 30.0,
    "attn_logit_softcapping": 50.0,
}
NULLABLE = frozenset({"sliding_window", "layer_types", "final_logit_softcapping", "attn_logit_softcapping"})


def query_scalar(values: GgufValues, largest: int) -> float:
    """The head's size, except in the model of 27 billion parameters, which llama.cpp knows by its layers."""
    return values.hidden // values.heads if values.layers == largest else values.head_size


GGUF = GgufArchitecture("gemma2", keys={"query_pre_attn_scalar": lambda values: query_scalar(values, 46)}, window=4096)
FAMILY = DecoderFamily(
    "gemma2",
    ("Gemma2ForCausalLM",),
    ROWS,
    decoder,
    {"gemma2": ConfigClass("Gemma2Config", DEFAULTS, NULLABLE, layer_rule=ALTERNATING)},
    gguf=GGUF,
)
