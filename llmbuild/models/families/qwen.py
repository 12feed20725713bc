"""Qwen 1: Llama with packed q, k, v that have biases, and other names; for texts of at most the length of its training."""

from llmbuild.canonical import Json
from llmbuild.models import rows
from llmbuild.models.architecture import DecoderFamily
from llmbuild.models.building import attention_of, decoder_of
from llmbuild.models.config_classes import ConfigClass, taken
from llmbuild.models.family import ModelConfig
from llmbuild.models.frequencies import make_rope
from llmbuild.models.gguf.architecture import GgufArchitecture
from llmbuild.models.spec import BlockSpec, DecoderSpec, MlpSpec, Names, NormSpec


def _trained(c: rows.Reading) -> int | None:
    """The length beyond which the base of RoPE or the scale of queries changes, or None."""
    changes = any(c.source.flag(name, default=True) for name in ("use_dynamic_ntk", "use_logn_attn"))
    return c.source.integer("seq_length") if changes and c.source.values.get("seq_length") is not None else None


def _context(c: rows.Reading) -> int:
    size: int = rows.CONTEXT.read(c)
    if c.seq_length is None or size <= c.seq_length:
        return size
    if c.source.values.get("context_window_size") not in (None, 0):
        raise c.source.error(
            "seq_length",
            f"is {c.seq_length}, and the context window has {size} tokens",
            why="beyond it RoPE and queries depend on the length of a prompt (use_dynamic_ntk, use_logn_attn)",
            fix=f"set context-window-size to at most {c.seq_length}",
        )
    c.source.note(
        f"the context window has the {c.seq_length} tokens of seq_length; longer texts change RoPE and queries"
    )
    return int(c.seq_length)


ROWS = (
    *rows.standard("vocab_size hidden_size num_hidden_layers num_attention_heads rms_norm_eps"),
    rows.only("scale_attn_weights", True),
    rows.integer("kv_channels", "head_dim"),
    *rows.standard("rope_theta intermediate_size"),
    rows.Row("context_window_size", _context),
    *rows.standard("prefill_chunk_size tensor_parallel_shards max_batch_size"),
    rows.WHOLE_HEAD_DIM,
    rows.flag("no_bias", True).extra(True),
    rows.TIED.extra(False),
    rows.Row("seq_length", _trained).extra(None),
)
"""MLC's fields in MLC's order, then values that MLC cannot express."""
NAMES = Names("transformer.wte", "", "transformer.h", "transformer.ln_f", before_attention="ln_1", before_mlp="ln_2")


def decoder(c: ModelConfig) -> DecoderSpec:
    norm, rope = NormSpec("rms", c.rms_norm_eps), make_rope(c.rope_theta, c.head_dim)
    packed = {"qkv": "c_attn", "qkv_sources": ("c_attn",), "qkv_bias": True}
    attention = attention_of(c, rope, name="attn", out="c_proj", out_bias=not c.no_bias, **packed)
    mlp = MlpSpec(c.intermediate_size // 2, up_sources=("w1", "w2"), down="c_proj", gate_last=True, bias=not c.no_bias)
    return decoder_of(c, BlockSpec(attention, mlp, norm, norm), norm, names=NAMES)


DEFAULTS: dict[str, Json] = {
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 8192,
    "head_dim": 128,
    "scale_attn_weights": True,
    "seq_length": None,
    "tie_word_embeddings": False,
}
SPELLING, RENAMED = {"rms_norm_eps": "layer_norm_epsilon", "rope_theta": "rotary_emb_base"}, {"kv_channels": "head_dim"}
CLASS = ConfigClass("QWenConfig", DEFAULTS, renamed=RENAMED, rope_types=taken("default"), remote=True)
GGUF = GgufArchitecture("qwen", pre="qwen2")
FAMILY = DecoderFamily(
    "qwen", ("QWenLMHeadModel",), ROWS, decoder, {"qwen": CLASS}, keeps_head=True, gguf=GGUF, spelling=SPELLING
)
