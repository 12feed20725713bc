"""Mistral 7B and its fine-tunes: Llama's block, with windows where the checkpoint has them; Ministral 8B and CWM."""

from collections.abc import Mapping

from llmbuild.canonical import Json
from llmbuild.models import rows
from llmbuild.models.architecture import DecoderFamily
from llmbuild.models.building import attention_of, decoder_of, mlp_of, rope_of, windowed_blocks
from llmbuild.models.config_classes import LLAMA, ConfigClass, without
from llmbuild.models.family import ModelConfig
from llmbuild.models.frequencies import ORIGINAL
from llmbuild.models.gguf.architecture import GgufArchitecture
from llmbuild.models.layer_types import all_but_first_of
from llmbuild.models.spec import BlockSpec, DecoderSpec, NormSpec
from llmbuild.models.values import ConfigValues
from llmbuild.models.windows import LAYER_TYPES, SINKS, SLIDING_WINDOW_SIZE, WINDOW, WINDOWED_CONTEXT

ROWS = (
    *rows.standard(
        "hidden_size intermediate_size num_attention_heads num_hidden_layers rms_norm_eps vocab_size "
        "position_embedding_base num_key_value_heads head_dim"
    ),
    WINDOWED_CONTEXT,
    SLIDING_WINDOW_SIZE,
    rows.CHUNK,
    SINKS,
    *rows.standard("tensor_parallel_shards max_batch_size"),
    rows.TIED.extra(False),
    rows.ROPE_SCALING.extra(None),
    rows.activation("silu").extra("silu"),
    WINDOW,
    LAYER_TYPES,
)
"""MLC's fields in MLC's order, then values that MLC cannot express."""


def decoder(c: ModelConfig) -> DecoderSpec:
    norm = NormSpec("rms", c.rms_norm_eps)
    blocks = windowed_blocks(c, BlockSpec(attention_of(c, rope_of(c)), mlp_of(c), norm, norm))
    return decoder_of(c, blocks, norm, rolling=c.sliding_window_size > 0)


DEFAULTS = without(LLAMA, "attention_bias", "mlp_bias") | {
    "num_key_value_heads": 8,
    "max_position_embeddings": 131072,
    "sliding_window": 4096,
    "layer_types": None,
}
NULLABLE = frozenset({"head_dim", "sliding_window", "layer_types"})
CWM = DEFAULTS | {"head_dim": 128, "rms_norm_eps": 1e-5, "sliding_window": 8192}
CWM_ROPE = {"factor": 16.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, ORIGINAL: 8192}


def _with_rope(source: ConfigValues) -> Mapping[str, Json]:
    """With the RoPE that the class has where a config.json has none."""
    given = source.values.get("rope_scaling") or source.values.get("rope_parameters") is not None
    rope: Json = {"rope_type": "llama3", "rope_theta": 1000000.0, **CWM_ROPE}
    return source.values if given else {**source.values, "rope_parameters": rope}


FAMILY = DecoderFamily(
    "mistral",
    ("MistralForCausalLM", "MinistralForCausalLM", "CwmForCausalLM"),
    ROWS,
    decoder,
    {
        "mistral": ConfigClass("MistralConfig", DEFAULTS, NULLABLE),
        "ministral": ConfigClass("MinistralConfig", DEFAULTS, NULLABLE - {"head_dim"}),
        "cwm": ConfigClass(
            "CwmConfig",
            CWM,
            frozenset({"layer_types"}),
            default_theta=1000000,
            layer_rule=all_but_first_of(4),
            adapted=_with_rope,
        ),
    },
    keeps_head=True,
    gguf=GgufArchitecture(
        "llama", neighbours=True, when=lambda values: values.windowed, pre="llama-bpe", others=("mistral3",)
    ),
)
