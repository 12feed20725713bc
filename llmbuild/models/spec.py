"""A decoder-only transformer as data, the input of `parameters` and `decoder`.

A decoder is a tuple of blocks, and a block is (norms, attention, MLP, residual form); equal blocks are one object.  The names
are the module's and the checkpoint's, so that one description yields the parameter list, the mapping from the checkpoint, and
the TVM module.  Nothing here imports TVM.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from llmbuild.canonical import Json

Activation = Literal["silu", "gelu", "gelu_tanh", "relu", "relu2"]

Stacking = Literal["stacked", "by_head", "by_group"]
"""How the rows of q, k and v lie in the checkpoint: all q, all k, all v ("stacked", also where they are one tensor); q, k and v
head by head ("by_head", GPT-NeoX); or the queries that share a key-value head, then this key and value ("by_group",
InternLM 2)."""

Slot = Literal["attention", "mlp", "before_attention", "after_attention", "before_mlp", "after_mlp"]


@dataclass(frozen=True, slots=True)
class NormSpec:
    """RMSNorm, or LayerNorm with a bias; without `weight` neither weight nor bias is there.

    `offset` is added to the weight when it is converted (Gemma stores a weight of 1 as 0), and `shift` when it is used, where
    MLC keeps the checkpoint's weight (Nemotron).
    """

    kind: Literal["rms", "layer"]
    eps: float
    weight: bool = True
    bias: bool | None = None
    offset: float = 0.0
    shift: float = 0.0

    @property
    def has_bias(self) -> bool:
        """Whether there is a bias: by default a LayerNorm's."""
        return self.weight and (self.kind == "layer" if self.bias is None else self.bias)


@dataclass(frozen=True, slots=True)
class RopeSpec:
    """Rotary embedding of the first `rotary_dim` elements of each head.

    Pair i turns by position * `frequencies`[i] radians, and both elements are multiplied by `factor`.  A pair is elements i and
    i + rotary_dim / 2, or with `interleaved` elements 2 i and 2 i + 1.  `theta` and `scaling` are what the frequencies were
    made of, which a rolling cache's kernels compute with.
    """

    rotary_dim: int
    frequencies: tuple[float, ...]
    factor: float = 1.0
    interleaved: bool = False
    theta: float = 10000.0
    scaling: Mapping[str, Json] | None = field(default=None, hash=False)


@dataclass(frozen=True, slots=True)
class TemperatureSpec:
    """Queries are multiplied by 1 + `beta` * log(1 + the number of whole `length`s before their position) (Llama 4)."""

    beta: float
    length: int


@dataclass(frozen=True, slots=True)
class AttentionSpec:
    """Grouped-query attention with one fused projection of outputs (heads + 2 * kv_heads) * head_dim, or three not `joined`.

    `qkv_sources` are the checkpoint's modules stacked to form it, or the three.  Scores are q k * `scale` (None: head_dim **
    -0.5), then softcap * tanh(scores / softcap) where there is one.  A query sees the `window` positions that end with its own,
    or all.  `qk_norm` normalizes q and k (modules `q_norm` and `k_norm`), each head or all heads together, before or after RoPE;
    over "each_head" every head has a weight of its own, which is a module `norms.N` of the checkpoint, over "each_row" a row
    of one.  Elements of q, k and v are kept within `clip` first.  With `transposed` the checkpoint has the inputs of both
    projections in rows.
    """

    heads: int
    kv_heads: int
    head_dim: int
    rope: RopeSpec | None = None
    name: str = "self_attn"
    qkv: str = "qkv_proj"
    qkv_sources: tuple[str, ...] = ("q_proj", "k_proj", "v_proj")
    stacking: Stacking = "stacked"
    qkv_bias: bool = False
    out: str = "o_proj"
    out_bias: bool = False
    qk_norm: NormSpec | None = None
    qk_norm_over: Literal["head", "all_heads", "each_head", "each_row"] = "head"
    qk_norm_after_rope: bool = False
    q_norm: str = "q_norm"
    k_norm: str = "k_norm"
    transposed: bool = False
    joined: bool = True
    scale: float | None = None
    softcap: float | None = None
    window: int | None = None
    clip: float | None = None
    temperature: TemperatureSpec | None = None

    @property
    def qkv_features(self) -> int:
        return (self.heads + 2 * self.kv_heads) * self.head_dim

    @property
    def qkv_modules(self) -> Mapping[str, tuple[int, tuple[str, ...]]]:
        """The projections, in order: of each its outputs and its sources."""
        if self.joined:
            return {self.qkv: (self.qkv_features, self.qkv_sources)}
        heads = (self.heads, self.kv_heads, self.kv_heads)
        return {name: (n * self.head_dim, (name,)) for name, n in zip(self.qkv_sources, heads, strict=True)}


@dataclass(frozen=True, slots=True)
class MlpSpec:
    """`gated`: down(act(gate) * up) with gate and up stacked in one projection, or not `joined`; otherwise down(act(up)).

    With `gate_last` the gate is the second of the stacked two.  With `transposed` the checkpoint has the inputs of both in rows.
    `out_dtype` "float32" keeps both biases and both products
    in float32, as MLC's GPT-NeoX does.
    """

    intermediate: int
    activation: Activation = "silu"
    gated: bool = True
    name: str = "mlp"
    up: str = "gate_up_proj"
    up_sources: tuple[str, ...] = ("gate_proj", "up_proj")
    down: str = "down_proj"
    bias: bool = False
    transposed: bool = False
    out_dtype: Literal["float32"] | None = None
    joined: bool = True
    gate_last: bool = False

    @property
    def up_modules(self) -> Mapping[str, tuple[str, ...]]:
        """The projections before the activation, with the sources of each."""
        return {self.up: self.up_sources} if self.joined else {name: (name,) for name in self.up_sources}

    @property
    def up_features(self) -> int:
        """Of each of them."""
        return 2 * self.intermediate if self.gated and self.joined else self.intermediate


@dataclass(frozen=True, slots=True)
class BlockSpec:
    """One layer: x = x + after_attention(attention(before_attention(x))), then the same with the MLP.

    A norm of None is left out.  `residual` "parallel" adds attention and MLP of the same input at once; there the MLP takes the
    attention's norm where it has none of its own.  What is added is multiplied by `residual_scale` first.
    """

    attention: AttentionSpec
    mlp: MlpSpec
    before_attention: NormSpec | None
    before_mlp: NormSpec | None
    after_attention: NormSpec | None = None
    after_mlp: NormSpec | None = None
    residual: Literal["sequential", "parallel"] = "sequential"
    residual_scale: float = 1.0

    def norm(self, slot: Slot) -> NormSpec | None:
        """The norm in a slot of `Names.order`, None for the other slots."""
        return {
            "before_attention": self.before_attention,
            "after_attention": self.after_attention,
            "before_mlp": self.before_mlp,
            "after_mlp": self.after_mlp,
        }.get(slot)


@dataclass(frozen=True, slots=True)
class Names:
    """Names of modules, dotted below the model (norms: below a layer); the defaults are Llama's.

    `order` is that in which a layer declares its children, which is the order of the parameters.  Where the checkpoint's names
    are others, `checkpoint` has pairs of a part of a name and what takes its place, applied one after another.
    """

    embedding: str = "model.embed_tokens"
    positions: str = "model.embed_positions"
    layers: str = "model.layers"
    final_norm: str = "model.norm"
    head: str = "lm_head"
    before_attention: str = "input_layernorm"
    after_attention: str = "post_self_attn_layernorm"
    before_mlp: str = "post_attention_layernorm"
    after_mlp: str = "post_mlp_layernorm"
    order: tuple[Slot, ...] = ("attention", "mlp", "before_attention", "after_attention", "before_mlp", "after_mlp")
    checkpoint: tuple[tuple[str, str], ...] = ()

    def below(self, prefix: str) -> Names:
        """These names with a prefix, which the checkpoint's names do not have."""
        parts = ("embedding", "positions", "layers", "final_norm", "head")
        named = {part: prefix + getattr(self, part) for part in parts}
        return replace(self, checkpoint=((prefix, ""), *self.checkpoint), **named)

    def in_checkpoint(self, name: str) -> str:
        """The checkpoint's name of a tensor."""
        for ours, theirs in self.checkpoint:
            name = name.replace(ours, theirs)
        return name

    @property
    def embedding_weight(self) -> str:
        """The checkpoint's name of the embedding."""
        return self.in_checkpoint(f"{self.embedding}.weight")

    @property
    def head_weight(self) -> str:
        """The checkpoint's name of the head, which a tied model may lack."""
        return self.in_checkpoint(f"{self.head}.weight")


@dataclass(frozen=True, slots=True)
class DecoderSpec:
    """Sizes are in elements.

    The embedding is multiplied by `embedding_scale`; logits by `logit_scale`, and then they are capped as scores are.  With
    `unit_head` each row of the head is divided by its length when it is converted.  With `tied_head` the checkpoint has one
    table for both, which the model has twice where MLC does (`copied_head`).  `positions` is the number of learned positions that
    are added to the embedding, and `positions_offset` the row of the first.  With `rolling` the cache keeps a window of one size
    for all layers (MLC's sliding window with sinks), and RoPE turns keys as they are used.
    """

    vocab_size: int
    hidden_size: int
    blocks: tuple[BlockSpec, ...]
    final_norm: NormSpec
    tied_head: bool = False
    copied_head: bool = False
    head_bias: bool = False
    unit_head: bool = False
    embedding_scale: float = 1.0
    logit_scale: float = 1.0
    logit_softcap: float | None = None
    positions: int = 0
    positions_offset: int = 0
    rolling: bool = False
    disaggregation: bool = False
    names: Names = field(default_factory=Names)

    @property
    def has_head(self) -> bool:
        """Whether the head is a module of its own."""
        return self.copied_head or not self.tied_head

    @property
    def ropes(self) -> tuple[RopeSpec, ...]:
        """The rotary embeddings of the layers, each once."""
        return tuple(dict.fromkeys(block.attention.rope for block in self.blocks if block.attention.rope is not None))
