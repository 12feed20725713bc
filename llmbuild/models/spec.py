"""A decoder-only transformer as data, the input of `parameters` and `decoder`.

A block is (norms, attention, MLP, residual form); the names are the module's and the checkpoint's, so that one
description yields the parameter list, the mapping from the checkpoint, and the TVM module.  Nothing here imports TVM.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from llmbuild.canonical import Json

Activation = Literal["silu", "gelu", "gelu_tanh", "relu"]


@dataclass(frozen=True, slots=True)
class NormSpec:
    """RMSNorm (weight only) or LayerNorm (weight and bias)."""

    kind: Literal["rms", "layer"]
    eps: float


@dataclass(frozen=True, slots=True)
class AttentionSpec:
    """Grouped-query attention with one fused projection of outputs (heads + 2 * kv_heads) * head_dim.

    `qkv_sources` are the checkpoint's modules stacked to form it; with `interleaved` a single source has q, k and v head by
    head.  `qk_norm` normalizes each head of q and k (modules `q_norm` and `k_norm`) before RoPE.
    """

    heads: int
    kv_heads: int
    head_dim: int
    name: str = "self_attn"
    qkv: str = "qkv_proj"
    qkv_sources: tuple[str, ...] = ("q_proj", "k_proj", "v_proj")
    interleaved: bool = False
    qkv_bias: bool = False
    out: str = "o_proj"
    out_bias: bool = False
    qk_norm: NormSpec | None = None

    @property
    def qkv_features(self) -> int:
        return (self.heads + 2 * self.kv_heads) * self.head_dim


@dataclass(frozen=True, slots=True)
class RopeSpec:
    """Rotary embedding of the first `rotary_dim` elements of each head; `scaling` None or of rope_type "llama3"."""

    theta: float
    rotary_dim: int
    scaling: Mapping[str, Json] | None = None


@dataclass(frozen=True, slots=True)
class MlpSpec:
    """`gated`: down(act(gate) * up) with gate and up stacked in one projection; otherwise down(act(up)).

    `out_dtype` "float32" keeps both biases and both products in float32, as MLC's GPT-NeoX does.
    """

    intermediate: int
    activation: Activation = "silu"
    gated: bool = True
    name: str = "mlp"
    up: str = "gate_up_proj"
    up_sources: tuple[str, ...] = ("gate_proj", "up_proj")
    down: str = "down_proj"
    bias: bool = False
    out_dtype: Literal["float32"] | None = None

    @property
    def up_features(self) -> int:
        return 2 * self.intermediate if self.gated else self.intermediate


@dataclass(frozen=True, slots=True)
class Names:
    """Module names of the backbone; the defaults are Llama's."""

    backbone: str = "model"
    embedding: str = "embed_tokens"
    layers: str = "layers"
    attention_norm: str = "input_layernorm"
    mlp_norm: str = "post_attention_layernorm"
    final_norm: str = "norm"
    head: str = "lm_head"
    norms_first: bool = False
    """Whether a layer declares its norms before attention and MLP; this is the order of the parameters."""

    @property
    def embedding_weight(self) -> str:
        """The checkpoint's name of the embedding."""
        return f"{self.backbone}.{self.embedding}.weight"

    @property
    def head_weight(self) -> str:
        """The checkpoint's name of the head, which a tied model may lack."""
        return f"{self.head}.weight"


@dataclass(frozen=True, slots=True)
class DecoderSpec:
    """Sizes are in elements.  `residual` "parallel" adds attention and MLP of the same input at once."""

    vocab_size: int
    hidden_size: int
    num_layers: int
    norm: NormSpec
    attention: AttentionSpec
    rope: RopeSpec
    mlp: MlpSpec
    tied_head: bool = False
    residual: Literal["sequential", "parallel"] = "sequential"
    disaggregation: bool = False
    names: Names = field(default_factory=Names)
