"""Ministral 3 and Devstral 2: Mistral with yarn, and queries that grow with the logarithm of their position."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from llmbuild.canonical import Json
from llmbuild.models import rows
from llmbuild.models.architecture import DecoderFamily
from llmbuild.models.building import attention_of, decoder_of, mlp_of, windowed_blocks
from llmbuild.models.config_classes import ConfigClass, without
from llmbuild.models.families import mistral
from llmbuild.models.family import ModelConfig
from llmbuild.models.frequencies import ORIGINAL, make_rope
from llmbuild.models.gguf.architecture import GgufArchitecture
from llmbuild.models.rows import Reading, Row
from llmbuild.models.scaling import read_scaling
from llmbuild.models.spec import BlockSpec, DecoderSpec, NormSpec, TemperatureSpec
from llmbuild.models.values import ConfigValues
from llmbuild.models.windows import LAYER_TYPES, SINKS, SLIDING_WINDOW_SIZE, WINDOW, WINDOWED_CONTEXT

BETA = "llama_4_scaling_beta"
ROPE: Mapping[str, Json] = {
    "rope_type": "yarn",
    "rope_theta": 1000000.0,
    "factor": 16.0,
    ORIGINAL: 16384,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "mscale_all_dim": 1.0,
    "mscale": 1.0,
    BETA: 0.1,
}
"""The RoPE of a configuration that says nothing of it."""


def _with_beta_beside(source: ConfigValues) -> Mapping[str, Json]:
    """The class has what queries grow by in the object of RoPE."""
    values = dict(source.values)
    place = "rope_scaling" if values.get("rope_scaling") else "rope_parameters"
    found = ROPE if place == "rope_parameters" and values.get(place) is None else values[place]
    if isinstance(found, Mapping):
        beta = found.get(BETA)
        if isinstance(beta, bool) or not isinstance(beta, int | float) or not math.isfinite(beta):
            what = "is missing" if beta is None else "must be a number"
            raise source.error(f"{place}.{BETA}", what, why="queries of this model grow by it with their position")
        values |= {place: {name: value for name, value in found.items() if name != BETA}, "query_beta": beta}
    return values


def _rope(c: Reading) -> Mapping[str, Any] | None:
    """MLC's name of the scaling, with the number by which queries grow."""
    source, written = c.source, c.source.values.get("rope_parameters")
    found = written if isinstance(written, Mapping) else source.values.get("rope_scaling")
    scaling = read_scaling(
        source.but({**source.values, "rope_scaling": found}),
        c.position_embedding_base,
        c.head_dim,
        c.context_window_size,
        rolling=c.sliding_window_size != -1,
    )
    return scaling if scaling is None else {BETA: source.values.get("query_beta"), **scaling}


ROWS = (
    *rows.standard("hidden_size intermediate_size num_attention_heads num_hidden_layers rms_norm_eps vocab_size"),
    SINKS,
    WINDOWED_CONTEXT,
    rows.constant("dtype", "float32"),
    rows.HEAD_DIM,
    rows.activation("silu"),
    *rows.standard("max_batch_size num_key_value_heads position_embedding_base prefill_chunk_size"),
    Row("rope_parameters", _rope),
    SLIDING_WINDOW_SIZE,
    *rows.standard("tensor_parallel_shards tie_word_embeddings"),
    rows.constant("weight_block_size", None),
    rows.constant("modules_to_not_convert", ()),
    WINDOW,
    LAYER_TYPES,
)
"""MLC's fields in MLC's order; MLC leaves out what queries grow by."""


def decoder(c: ModelConfig) -> DecoderSpec:
    norm = NormSpec("rms", c.rms_norm_eps)
    rope = make_rope(c.position_embedding_base, c.head_dim, c.rope_parameters, context=c.context_window_size)
    scaling: Mapping[str, Any] = c.rope_parameters or {BETA: None}
    temperature = None
    # Within the original length queries are as they are.
    if scaling[BETA] and c.context_window_size > scaling[ORIGINAL]:
        temperature = TemperatureSpec(scaling[BETA], int(scaling[ORIGINAL]))
    attention = attention_of(c, rope, temperature=temperature)
    return decoder_of(c, windowed_blocks(c, BlockSpec(attention, mlp_of(c), norm, norm)), norm)


DEFAULTS = without(mistral.DEFAULTS, "layer_types") | {
    "head_dim": 128,
    "max_position_embeddings": 262144,
    "rms_norm_eps": 1e-5,
    "sliding_window": None,
}
CLASS = ConfigClass(
    "Ministral3Config",
    DEFAULTS,
    frozenset({"sliding_window"}),
    rope_types={"yarn": "yarn"},
    adapted=_with_beta_beside,
)
GGUF = GgufArchitecture(
    "mistral3",
    neighbours=True,
    scaling={BETA: lambda values: values.number("attention.temperature_scale")},
    when=lambda values: values.optional_number("attention.temperature_scale") is not None,
    pre="tekken",
)
FAMILY = DecoderFamily("ministral3", ("Ministral3ForCausalLM",), ROWS, decoder, {"ministral3": CLASS}, gguf=GGUF)
