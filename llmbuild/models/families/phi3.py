"""Phi-3, 3.5, 4 and 4-mini: Llama's block with packed projections, and RoPE of type longrope on a part of each head."""

from llmbuild.models import rows
from llmbuild.models.architecture import DecoderFamily
from llmbuild.models.building import attention_of, decoder_of, mlp_of, rope_of, windowed_blocks
from llmbuild.models.config_classes import LLAMA, ConfigClass, without
from llmbuild.models.family import ModelConfig
from llmbuild.models.gguf.architecture import GgufArchitecture
from llmbuild.models.spec import BlockSpec, DecoderSpec, Names, NormSpec
from llmbuild.models.windows import LAYER_TYPES, WINDOW, WINDOWED_CONTEXT

ROWS = (
    rows.constant("model_type", "phi3"),
    *rows.standard(
        "hidden_size vocab_size num_hidden_layers num_attention_heads intermediate_size rms_norm_eps "
        "num_key_value_heads"
    ),
    rows.integer("max_position_embeddings"),
    rows.POSITION_EMBEDDING_BASE,
    rows.PARTIAL_ROPE_SCALING,
    rows.integer("original_max_position_embeddings", default=4096),
    WINDOWED_CONTEXT,
    rows.CHUNK,
    rows.WHOLE_HEAD_DIM,
    *rows.standard("tensor_parallel_shards max_batch_size tie_word_embeddings"),
    rows.rotary_share(1.0),
    rows.activation("silu").extra("silu"),
    WINDOW,
    LAYER_TYPES,
)
"""MLC's fields in MLC's order, then the activation, which MLC assumes, and the window, which it does not read."""
NAMES = Names(
    embedding="transformer.embd",
    layers="transformer.h",
    final_norm="transformer.norm",
    before_attention="ln",
    order=("before_attention", "attention", "mlp", "before_mlp"),
    checkpoint=(
        ("transformer.embd", "model.embed_tokens"),
        ("transformer.h", "model.layers"),
        ("transformer", "model"),
        (".ln.", ".input_layernorm."),
        ("mixer.out_proj", "self_attn.o_proj"),
        ("mixer", "self_attn"),
    ),
)


def decoder(c: ModelConfig) -> DecoderSpec:
    norm = NormSpec("rms", c.rms_norm_eps)
    rope = rope_of(c, rows.rotated(c))
    attention = attention_of(c, rope, name="mixer", qkv_sources=("qkv_proj",), out="out_proj")
    mlp = mlp_of(c, up_sources=("gate_up_proj",))
    blocks = windowed_blocks(c, BlockSpec(attention, mlp, norm, norm))
    return decoder_of(c, blocks, norm, names=NAMES)


DEFAULTS = without(LLAMA, "attention_bias", "mlp_bias") | {
    "max_position_embeddings": 4096,
    "original_max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5,
    "sliding_window": None,
}
TYPES = {"default": "default", "longrope": "longrope", "su": "longrope", "yarn": "longrope"}
NULLABLE = frozenset({"num_key_value_heads", "sliding_window"})
CLASS = ConfigClass("Phi3Config", DEFAULTS, NULLABLE, partial="partial_rotary_factor", rope_types=TYPES)
FAMILY = DecoderFamily("phi3", ("Phi3ForCausalLM",), ROWS, decoder, {"phi3": CLASS}, gguf=GgufArchitecture("phi3"))
