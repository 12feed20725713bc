"""MiniCPM 1, 2 and 4 (dense): Llama whose embedding, residual branches and logits are multiplied."""

import math

from llmbuild.models import rows
from llmbuild.models.architecture import DecoderFamily
from llmbuild.models.building import attention_of, decoder_of, mlp_of, rope_of
from llmbuild.models.config_classes import LLAMA, ConfigClass, taken, without
from llmbuild.models.family import ModelConfig
from llmbuild.models.gguf.architecture import GgufArchitecture, Reader
from llmbuild.models.gguf.values import GgufValues
from llmbuild.models.spec import BlockSpec, DecoderSpec, NormSpec

MULTIPLIERS = ("scale_emb", "scale_depth", "dim_model_base")
ROWS = (
    *rows.standard("vocab_size hidden_size num_hidden_layers num_attention_heads num_key_value_heads"),
    rows.activation("silu"),
    *rows.standard("rms_norm_eps intermediate_size"),
    *(rows.number(name) for name in MULTIPLIERS),
    rows.kept("use_cache", True),
    *rows.token_ids(bos=1, eos=2),
    *rows.standard("tie_word_embeddings rope_theta context_window_size prefill_chunk_size tensor_parallel_shards"),
    rows.WHOLE_HEAD_DIM,
    rows.BATCH,
    *(rows.integer(name, default=0, minimum=0, maximum=0) for name in ("num_experts_per_tok", "num_experts")),
    rows.ROPE_SCALING.extra(None),
    rows.flag("attention_bias", False).extra(False),
)
"""MLC's fields in MLC's order, then values that MLC cannot express."""


def decoder(c: ModelConfig) -> DecoderSpec:
    norm = NormSpec("rms", c.rms_norm_eps)
    biases = {"qkv_bias": c.attention_bias, "out_bias": c.attention_bias}
    attention = attention_of(c, rope_of(c), qkv="wqkv_pack", **biases)
    block = BlockSpec(attention, mlp_of(c), norm, norm, residual_scale=c.scale_depth / math.sqrt(c.num_hidden_layers))
    return decoder_of(c, block, norm, embedding_scale=c.scale_emb, logit_scale=c.dim_model_base / c.hidden_size)


DEFAULTS = without(LLAMA, "mlp_bias", "head_dim") | {"tie_word_embeddings": True, **dict.fromkeys(MULTIPLIERS, 1)}
TYPES = taken("default linear dynamic longrope")
CLASS = ConfigClass("MiniCPMConfig", DEFAULTS, frozenset({"num_key_value_heads"}), rope_types=TYPES, remote=True)


def _rounded(value: float) -> float:
    """A quotient or a product of what a float32 has, as the number that it was made of."""
    return float(f"{value:.6g}")


def _depth(values: GgufValues) -> float:
    scale = values.optional_number("residual_scale")
    return 1.4 if scale is None else _rounded(scale * math.sqrt(values.layers))


GGUF_KEYS: dict[str, Reader] = {
    "scale_emb": lambda values: values.optional_number("embedding_scale") or 12.0,
    "scale_depth": _depth,
    "dim_model_base": lambda values: _rounded(values.hidden / values.number("logit_scale", values.hidden / 256)),
}
"""The first files of MiniCPM had none of these, and llama.cpp takes the first models' then."""
GGUF = GgufArchitecture("minicpm", neighbours=True, keys=GGUF_KEYS)
FAMILY = DecoderFamily("minicpm", ("MiniCPMForCausalLM",), ROWS, decoder, {"minicpm": CLASS}, gguf=GGUF)
