"""Mistral 7B and its fine-tunes: Llama's block, with windows where the checkpoint has them; Ministral 8B."""

from llmbuild.models import rows
from llmbuild.models.architecture import DecoderFamily
from llmbuild.models.building import attention_of, decoder_of, mlp_of, rope_of, windowed_blocks
from llmbuild.models.config_classes import LLAMA, ConfigClass, without
from llmbuild.models.family import ModelConfig
from llmbuild.models.gguf.architecture import GgufArchitecture
from llmbuild.models.spec import BlockSpec, DecoderSpec, NormSpec
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


def decoder(c: ModelConfig, *, mlp_bias: bool = False) -> DecoderSpec:
    norm = NormSpec("rms", c.rms_norm_eps)
    blocks = windowed_blocks(c, BlockSpec(attention_of(c, rope_of(c)), mlp_of(c, bias=mlp_bias), norm, norm))
    return decoder_of(c, blocks, norm, rolling=c.sliding_window_size > 0)


DEFAULTS = without(LLAMA, "attention_bias", "mlp_bias") | {
    "num_key_value_heads": 8,
    "max_position_embeddings": 131072,
    "sliding_window": 4096,
    "layer_types": None,
}
NULLABLE = frozenset({"head_dim", "sliding_window", "layer_types"})
CLASSES = {
    "mistral": ConfigClass("MistralConfig", DEFAULTS, NULLABLE),
    "ministral": ConfigClass("MinistralConfig", DEFAULTS, NULLABLE - {"head_dim"}),
}
NAMES = ("MistralForCausalLM", "MinistralForCausalLM")
GGUF = GgufArchitecture(
    "llama", neighbours=True, when=lambda values: values.windowed, pre="llama-bpe", others=("mistral3",)
)
FAMILY = DecoderFamily("mistral", NAMES, ROWS, decoder, CLASSES, keeps_head=True, gguf=GGUF)
