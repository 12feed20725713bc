"""OLMo: Llama with LayerNorm that has no parameters, and elements of q, k and v within a bound."""

from llmbuild.models import rows
from llmbuild.models.architecture import DecoderFamily
from llmbuild.models.building import attention_of, decoder_of, mlp_of, rope_of
from llmbuild.models.config_classes import LLAMA, ConfigClass, without
from llmbuild.models.family import ModelConfig
from llmbuild.models.gguf.architecture import GgufArchitecture
from llmbuild.models.spec import BlockSpec, DecoderSpec, NormSpec

ROWS = (
    *rows.standard(
        "vocab_size hidden_size num_attention_heads num_key_value_heads head_dim position_embedding_base rope_scaling "
        "intermediate_size"
    ),
    rows.activation("silu"),
    *rows.standard(
        "num_hidden_layers tie_word_embeddings context_window_size prefill_chunk_size tensor_parallel_shards "
        "pipeline_parallel_stages max_batch_size"
    ),
    rows.optional_number("clip_qkv"),
    rows.flag("attention_bias", False).extra(False),
)
"""MLC's fields in MLC's order, then biases, which MLC cannot express."""


def decoder(c: ModelConfig) -> DecoderSpec:
    norm = NormSpec("layer", 1e-5, weight=False)
    biases = {"qkv_bias": c.attention_bias, "out_bias": c.attention_bias}
    attention = attention_of(c, rope_of(c), clip=c.clip_qkv, **biases)
    mlp = mlp_of(c)
    return decoder_of(c, BlockSpec(attention, mlp, norm, norm), norm)


FAMILY = DecoderFamily(
    "olmo",
    ("OlmoForCausalLM",),
    ROWS,
    decoder,
    {
        "olmo": ConfigClass(
            "OlmoConfig",
            without(LLAMA, "mlp_bias", "rms_norm_eps") | {"clip_qkv": None},
            frozenset({"num_key_value_heads", "clip_qkv"}),
        )
    },
    gguf=GgufArchitecture("olmo", neighbours=True, pre="olmo"),
)
