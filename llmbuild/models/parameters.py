"""The parameters of a decoder, listed from its description without TVM.

The order is the module's declaration order (`llmbuild.models.decoder` builds the same one), which is also the order of the
library's packed parameters.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from llmbuild.models.parameter import Parameter, Role
from llmbuild.models.spec import DecoderSpec, NormSpec


def parameters(spec: DecoderSpec) -> tuple[Parameter, ...]:
    """Every parameter before quantization, with its sources in the checkpoint."""
    return tuple(_decoder(spec))


def _decoder(spec: DecoderSpec) -> Iterator[Parameter]:
    names = spec.names
    yield _weight(f"{names.backbone}.{names.embedding}", (spec.vocab_size, spec.hidden_size), "embedding")
    for index in range(spec.num_layers):
        yield from _layer(spec, f"{names.backbone}.{names.layers}.{index}")
    yield from _norm(f"{names.backbone}.{names.final_norm}", spec.hidden_size, spec.norm)
    if not spec.tied_head:
        yield _weight(names.head, (spec.vocab_size, spec.hidden_size), "head")


def _layer(spec: DecoderSpec, layer: str) -> Iterator[Parameter]:
    if not spec.names.norms_first:
        yield from _attention(spec, f"{layer}.{spec.attention.name}")
        yield from _mlp(spec, f"{layer}.{spec.mlp.name}")
    for name in (spec.names.attention_norm, spec.names.mlp_norm):
        yield from _norm(f"{layer}.{name}", spec.hidden_size, spec.norm)
    if spec.names.norms_first:
        yield from _attention(spec, f"{layer}.{spec.attention.name}")
        yield from _mlp(spec, f"{layer}.{spec.mlp.name}")


def _attention(spec: DecoderSpec, module: str) -> Iterator[Parameter]:
    attention = spec.attention
    sources = [f"{module}.{source}" for source in attention.qkv_sources]
    interleaved = attention.heads if attention.interleaved else 0
    shape = (attention.qkv_features, spec.hidden_size)
    yield _weight(f"{module}.{attention.qkv}", shape, "linear", sources, interleaved)
    if attention.qkv_bias:
        yield _bias(f"{module}.{attention.qkv}", attention.qkv_features, sources, interleaved)
    yield _weight(f"{module}.{attention.out}", (spec.hidden_size, attention.heads * attention.head_dim), "linear")
    if attention.out_bias:
        yield _bias(f"{module}.{attention.out}", spec.hidden_size)
    if attention.qk_norm is not None:
        for name in ("q_norm", "k_norm"):
            yield from _norm(f"{module}.{name}", attention.head_dim, attention.qk_norm)


def _mlp(spec: DecoderSpec, module: str) -> Iterator[Parameter]:
    mlp = spec.mlp
    sources = [f"{module}.{source}" for source in mlp.up_sources]
    yield _weight(f"{module}.{mlp.up}", (mlp.up_features, spec.hidden_size), "linear", sources)
    if mlp.bias:
        yield _bias(f"{module}.{mlp.up}", mlp.up_features, sources, dtype=mlp.out_dtype)
    yield _weight(f"{module}.{mlp.down}", (spec.hidden_size, mlp.intermediate), "linear")
    if mlp.bias:
        yield _bias(f"{module}.{mlp.down}", spec.hidden_size, dtype=mlp.out_dtype)


def _norm(module: str, size: int, norm: NormSpec) -> Iterator[Parameter]:
    yield _weight(module, (size,), "plain")
    if norm.kind == "layer":
        yield _bias(module, size)


def _weight(
    module: str, shape: tuple[int, ...], role: Role, sources: Sequence[str] = (), interleaved: int = 0
) -> Parameter:
    origins = tuple(f"{source}.weight" for source in sources or (module,))
    return Parameter(f"{module}.weight", shape, role, origins, interleaved)


def _bias(
    module: str,
    size: int,
    sources: Sequence[str] = (),
    interleaved: int = 0,
    dtype: Literal["float32"] | None = None,
) -> Parameter:
    origins = tuple(f"{source}.bias" for source in sources or (module,))
    return Parameter(f"{module}.bias", (size,), "plain", origins, interleaved, dtype)
