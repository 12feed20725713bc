"""InternLM 7B and 20B: Llama with biases in attention, and a RoPE that `rotary` of config.json describes."""

from collections.abc import Mapping

from llmbuild.canonical import Json
from llmbuild.models import rows
from llmbuild.models.architecture import DecoderFamily
from llmbuild.models.building import attention_of, decoder_of, mlp_of, rope_of
from llmbuild.models.config_classes import LLAMA, ConfigClass, without
from llmbuild.models.family import ModelConfig
from llmbuild.models.spec import BlockSpec, DecoderSpec, NormSpec
from llmbuild.models.values import ConfigValues, shown

ROWS = (
    *rows.standard("vocab_size hidden_size num_hidden_layers num_attention_heads rms_norm_eps intermediate_size"),
    rows.flag("bias", True),
    rows.kept("use_cache", True),
    *rows.token_ids(pad=0, bos=1, eos=2),
    *rows.standard("context_window_size prefill_chunk_size tensor_parallel_shards max_batch_size"),
    rows.WHOLE_HEAD_DIM,
    rows.TIED.extra(False),
    rows.POSITION_EMBEDDING_BASE.extra(10000),
    rows.ROPE_SCALING.extra(None),
    rows.activation("silu").extra("silu"),
)
"""MLC's fields in MLC's order, then values that MLC cannot express."""


def decoder(c: ModelConfig) -> DecoderSpec:
    norm = NormSpec("rms", c.rms_norm_eps)
    attention = attention_of(c, rope_of(c), qkv="wqkv_pack", qkv_bias=c.bias, out_bias=c.bias)
    return decoder_of(c, BlockSpec(attention, mlp_of(c), norm, norm), norm)


def _adapted(source: ConfigValues) -> Mapping[str, Json]:
    """The RoPE of `rotary` in transformers' words."""
    rotary = source.values.get("rotary", {"base": 10000, "type": "dynamic"})
    kind = rotary.get("type") if isinstance(rotary, Mapping) else None
    if not isinstance(rotary, Mapping) or kind not in ("origin", "dynamic"):
        raise source.error("rotary", f"is {shown(rotary)}, and its type must be origin or dynamic")
    scaling = {"rope_type": kind, "factor": rotary.get("scaling_factor", 1.0)} if kind == "dynamic" else None
    return {**source.values, "rotary.base": rotary.get("base", 10000), "rope_scaling": scaling}


DEFAULTS = without(LLAMA, "num_key_value_heads", "attention_bias", "mlp_bias", "head_dim") | {"bias": True}
CLASS = ConfigClass("InternLMConfig", DEFAULTS, theta="rotary.base", remote=True, adapted=_adapted)
FAMILY = DecoderFamily("internlm", ("InternLMForCausalLM",), ROWS, decoder, {"internlm": CLASS}, keeps_head=True)
