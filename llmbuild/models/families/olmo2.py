"""OLMo 2: Llama with norms after attention and MLP only, and RMSNorm over all heads of q and of k."""

from llmbuild.models import rows
from llmbuild.models.architecture import DecoderFamily
from llmbuild.models.building import attention_of, decoder_of, mlp_of, rope_of
from llmbuild.models.config_classes import LLAMA, ConfigClass, without
from llmbuild.models.family import ModelConfig
from llmbuild.models.gguf.architecture import GgufArchitecture
from llmbuild.models.spec import BlockSpec, DecoderSpec, Names, NormSpec, RopeSpec

ROWS = (
    *rows.standard(
        "vocab_size hidden_size num_attention_heads num_key_value_heads head_dim position_embedding_base rope_scaling "
        "intermediate_size"
    ),
    rows.activation("silu"),
    rows.LAYERS,
    rows.number("rms_norm_eps", default=1e-5),
    *rows.standard(
        "tie_word_embeddings context_window_size prefill_chunk_size tensor_parallel_shards pipeline_parallel_stages "
        "max_batch_size"
    ),
    rows.flag("attention_bias", False).extra(False),
)
"""MLC's fields in MLC's order, then biases, which MLC cannot express."""


NAMES = Names(after_attention="post_attention_layernorm", after_mlp="post_feedforward_layernorm")


def block_of(c: ModelConfig, norm: NormSpec, rope: RopeSpec) -> BlockSpec:
    biases = {"qkv_bias": c.attention_bias, "out_bias": c.attention_bias}
    attention = attention_of(c, rope, qk_norm=norm, qk_norm_over="all_heads", **biases)
    return BlockSpec(attention, mlp_of(c), None, None, after_attention=norm, after_mlp=norm)


def decoder(c: ModelConfig) -> DecoderSpec:
    norm = NormSpec("rms", c.rms_norm_eps)
    return decoder_of(c, block_of(c, norm, rope_of(c)), norm, names=NAMES)


DEFAULTS = without(LLAMA, "mlp_bias") | {"rms_norm_eps": 1e-5}
CLASS = ConfigClass("Olmo2Config", DEFAULTS, frozenset({"num_key_value_heads"}))
FAMILY = DecoderFamily("olmo2", ("Olmo2ForCausalLM",), ROWS, decoder, {"olmo2": CLASS}, gguf=GgufArchitecture("olmo2"))
