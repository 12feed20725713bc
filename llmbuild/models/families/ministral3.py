"""Ministral 3 and Devstral 2: Mistral with yarn, and queries that grow with the logarithm of their position."""

from llmbuild.models import rows
from llmbuild.models.architecture import DecoderFamily
from llmbuild.models.building import attention_of, decoder_of, mlp_of, windowed_blocks
from llmbuild.models.config_classes import ConfigClass, taken, without
from llmbuild.models.families import mistral
from llmbuild.models.family import ModelConfig
from llmbuild.models.frequencies import ORIGINAL, make_rope
from llmbuild.models.gguf.architecture import GgufArchitecture
from llmbuild.models.query_scale import BETA, ROPE_PARAMETERS, temperature_of, with_beta_beside
from llmbuild.models.spec import BlockSpec, DecoderSpec, NormSpec
from llmbuild.models.windows import LAYER_TYPES, SINKS, SLIDING_WINDOW_SIZE, WINDOW, WINDOWED_CONTEXT

YARN = {"rope_type": "yarn", "factor": 16.0, ORIGINAL: 16384, "beta_fast": 32.0, "beta_slow": 1.0}
ROPE = YARN | {"rope_theta": 1000000.0, "mscale_all_dim": 1.0, "mscale": 1.0, BETA: 0.1}
"""The RoPE of a configuration that says nothing of it."""


ROWS = (
    *rows.standard("hidden_size intermediate_size num_attention_heads num_hidden_layers rms_norm_eps vocab_size"),
    SINKS,
    WINDOWED_CONTEXT,
    rows.constant("dtype", "float32"),
    rows.HEAD_DIM,
    rows.activation("silu"),
    *rows.standard("max_batch_size num_key_value_heads position_embedding_base prefill_chunk_size"),
    ROPE_PARAMETERS,
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
    attention = attention_of(c, rope, temperature=temperature_of(c))
    return decoder_of(c, windowed_blocks(c, BlockSpec(attention, mlp_of(c), norm, norm)), norm)


DEFAULTS = without(mistral.DEFAULTS, "layer_types") | {
    "head_dim": 128,
    "max_position_embeddings": 262144,
    "rms_norm_eps": 1e-5,
    "sliding_window": None,
}
NULLABLE = frozenset({"sliding_window"})
CLASS = ConfigClass(
    "Ministral3Config", DEFAULTS, NULLABLE, rope_types=taken("yarn"), default_rope=ROPE, adapted=with_beta_beside
)
GGUF = GgufArchitecture(
    "mistral3",
    neighbours=True,
    scaling={BETA: lambda values: values.number("attention.temperature_scale")},
    when=lambda values: values.optional_number("attention.temperature_scale") is not None,
    pre="tekken",
)
FAMILY = DecoderFamily("ministral3", ("Ministral3ForCausalLM",), ROWS, decoder, {"ministral3": CLASS}, gguf=GGUF)
