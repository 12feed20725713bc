"""Baichuan 7B and Baichuan 2 7B: Llama with packed q, k, v, in the second with a head whose rows have the length 1."""

from collections.abc import Mapping

from llmbuild.canonical import Json
from llmbuild.models import rows
from llmbuild.models.architecture import DecoderFamily
from llmbuild.models.building import attention_of, decoder_of, mlp_of
from llmbuild.models.config_classes import LLAMA, ConfigClass, taken, without
from llmbuild.models.family import ModelConfig
from llmbuild.models.frequencies import make_rope
from llmbuild.models.gguf.architecture import GgufArchitecture
from llmbuild.models.spec import BlockSpec, DecoderSpec, NormSpec
from llmbuild.models.values import ConfigValues

ROWS = (
    *rows.standard("vocab_size hidden_size num_hidden_layers num_attention_heads"),
    rows.kept("initializer_range", 0.02),
    *rows.standard("intermediate_size rms_norm_eps"),
    rows.kept("use_cache", True),
    *rows.token_ids(pad=0, bos=1, eos=2),
    rows.only("tie_word_embeddings", False),
    *rows.standard("context_window_size prefill_chunk_size tensor_parallel_shards max_batch_size"),
    rows.WHOLE_HEAD_DIM,
    rows.activation("silu").extra("silu"),
    rows.flag("unit_head", False).extra(False),
)
"""MLC's fields in MLC's order, then the activation and the division of the head's rows, which MLC leaves out."""


def decoder(c: ModelConfig) -> DecoderSpec:
    norm, rope = NormSpec("rms", c.rms_norm_eps), make_rope(10000, c.head_dim)
    attention = attention_of(c, rope, qkv="W_pack", qkv_sources=("W_pack",))
    return decoder_of(c, BlockSpec(attention, mlp_of(c), norm, norm), norm, unit_head=c.unit_head)


def _adapted(source: ConfigValues) -> Mapping[str, Json]:
    """The name of the architecture tells the two apart; 13B models, which have it too, have no longest position."""
    if "max_position_embeddings" not in source.values or source.values.get("num_attention_heads") == 40:
        raise source.error(
            "model_type",
            "is 'baichuan' in a 13B model, which is not supported",
            why="its positions are biases of attention by distance (ALiBi), which are not built yet",
            fix="choose a 7B model",
        )
    names = source.values.get("architectures")
    second = (
        "BaichuanForCausalLM" in names if isinstance(names, list | tuple) else source.values.get("vocab_size") == 125696
    )
    return {**source.values, "rope_base": 10000, "unit_head": second}


DEFAULTS = without(LLAMA, "num_key_value_heads", "head_dim", "attention_bias", "mlp_bias") | {
    "max_position_embeddings": 4096
}
CLASS = ConfigClass(
    "BaichuanConfig", DEFAULTS, theta="rope_base", rope_types=taken("default"), remote=True, adapted=_adapted
)
ARCHITECTURES = ("BaiChuanForCausalLM", "BaichuanForCausalLM")
# A file does not name one of the two, and the size of the vocabulary tells.
GGUF = GgufArchitecture("baichuan", neighbours=True, keys={"architectures": lambda _: None})
FAMILY = DecoderFamily("baichuan", ARCHITECTURES, ROWS, decoder, {"baichuan": CLASS}, gguf=GGUF)
