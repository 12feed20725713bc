"""Nemotron (3 and 4, Minitron): LayerNorm whose weight is one less, RoPE on half of each head, an MLP without a gate."""

from llmbuild.models import rows
from llmbuild.models.architecture import DecoderFamily
from llmbuild.models.building import attention_of, decoder_of, plain_mlp, rope_of
from llmbuild.models.config_classes import GROUPED, LLAMA, ConfigClass, without
from llmbuild.models.family import ModelConfig
from llmbuild.models.gguf.architecture import GgufArchitecture
from llmbuild.models.spec import BlockSpec, DecoderSpec, NormSpec

ROWS = (
    rows.VOCAB_SIZE,
    rows.integer("max_position_embeddings"),
    *rows.standard(
        "hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads rope_theta"
    ),
    rows.rotary_share(0.5),
    rows.PARTIAL_ROPE_SCALING,
    rows.number("norm_eps", default=1e-5),
    *rows.standard("head_dim tie_word_embeddings"),
    rows.flag("mlp_bias", False),
    *rows.standard(
        "context_window_size prefill_chunk_size tensor_parallel_shards pipeline_parallel_stages max_batch_size "
        "disaggregation"
    ),
    rows.flag("attention_bias", False).extra(False),
    rows.activation("relu2").extra("relu2"),
)
"""MLC's fields in MLC's order, then values that MLC cannot express."""


def decoder(c: ModelConfig) -> DecoderSpec:
    norm = NormSpec("layer", c.norm_eps, shift=1.0)
    rope = rope_of(c, rows.rotated(c))
    attention = attention_of(c, rope, qkv_bias=c.attention_bias, out_bias=c.attention_bias)
    mlp = plain_mlp(c, "up_proj", "down_proj", bias=c.mlp_bias)
    return decoder_of(c, BlockSpec(attention, mlp, norm, norm), norm, disaggregation=c.disaggregation)


DEFAULTS = without(LLAMA, "rms_norm_eps") | {"norm_eps": 1e-5, "hidden_act": "relu2", "max_position_embeddings": 4096}
FAMILY = DecoderFamily(
    "nemotron",
    ("NemotronForCausalLM",),
    ROWS,
    decoder,
    {
        "nemotron": ConfigClass(
            "NemotronConfig", DEFAULTS, GROUPED, partial="partial_rotary_factor", default_partial=0.5
        )
    },
    gguf=GgufArchitecture("nemotron"),
)
