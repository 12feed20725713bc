"""GPT-2: learned positions, LayerNorm, biases everywhere, and weights that lie with their inputs in rows."""

from typing import Any

from llmbuild.models import rows
from llmbuild.models.architecture import DecoderFamily
from llmbuild.models.building import attention_of, blocks_of, decoder_of, plain_mlp
from llmbuild.models.config_classes import ConfigClass
from llmbuild.models.family import ModelConfig
from llmbuild.models.gguf.architecture import GgufArchitecture
from llmbuild.models.spec import BlockSpec, DecoderSpec, Names, NormSpec, Slot

ROWS = (
    *rows.standard("vocab_size hidden_size num_hidden_layers num_attention_heads"),
    rows.number("layer_norm_eps", default=1e-5),
    rows.INNER_SIZE,
    rows.POSITIONED_CONTEXT,
    rows.CHUNK,
    rows.flag("scale_attn_by_inverse_layer_idx", False),
    rows.SHARDS,
    rows.WHOLE_HEAD_DIM,
    rows.BATCH,
    rows.POSITIONS.extra(lambda c: c.context_window_size),
    rows.activation("gelu_new").extra("gelu_new"),
    rows.flag("scale_attn_weights", True).extra(True),
    rows.flag("tie_word_embeddings", True).extra(True),
)
"""MLC's fields in MLC's order, then values that MLC assumes."""
PLACES = ("transformer.wte", "transformer.wpe", "transformer.h", "transformer.ln_f")
ORDER: tuple[Slot, ...] = ("before_attention", "attention", "before_mlp", "mlp")
NAMES = Names(*PLACES, before_attention="ln_1", before_mlp="ln_2", order=ORDER)
ATTENTION: dict[str, Any] = {"name": "attn", "qkv": "c_attn", "qkv_sources": ("c_attn",), "out": "c_proj"}


def decoder(c: ModelConfig) -> DecoderSpec:
    norm, scale = NormSpec("layer", c.layer_norm_eps), c.head_dim**-0.5 if c.scale_attn_weights else 1.0
    mlp = plain_mlp(c, "c_fc", "c_proj", bias=True, transposed=True)

    def block(divisor: int) -> BlockSpec:
        parts = {"qkv_bias": True, "out_bias": True, "transposed": True, "scale": scale / divisor}
        return BlockSpec(attention_of(c, None, **ATTENTION, **parts), mlp, norm, norm)

    divisors = [layer + 1 if c.scale_attn_by_inverse_layer_idx else 1 for layer in range(c.num_hidden_layers)]
    parts = {"positions": c.max_position_embeddings, "copied_head": True, "names": NAMES}
    return decoder_of(c, blocks_of(divisors, block), norm, **parts)


SIZES = {"hidden_size": "n_embd", "num_hidden_layers": "n_layer", "num_attention_heads": "n_head"}
RENAMED = SIZES | {"max_position_embeddings": "n_positions"}
OWN = {"intermediate_size": "n_inner", "layer_norm_eps": "layer_norm_epsilon", "hidden_act": "activation_function"}
MASKS = (".attn.masked_bias", ".attn.bias")
DEFAULTS = {
    "intermediate_size": None,
    "layer_norm_eps": 1e-5,
    "max_position_embeddings": 1024,
    "hidden_act": "gelu_new",
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "tie_word_embeddings": True,
}
CLASS = ConfigClass("GPT2Config", DEFAULTS, frozenset({"intermediate_size"}), RENAMED, rope=False)
CLASSES = {"gpt2": CLASS, "gpt-sw3": CLASS}
OTHERS: dict[str, Any] = {"masks": MASKS, "gguf": GgufArchitecture("gpt2"), "spelling": RENAMED | OWN}
FAMILY = DecoderFamily("gpt2", ("GPT2LMHeadModel",), ROWS, decoder, CLASSES, **OTHERS)
