"""The parameters of a decoder, listed from its description without TVM.

The order is the module's declaration order (`llmbuild.models.decoder` builds the same one), which is also the order of the
library's packed parameters.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal

from llmbuild.models.parameter import Parameter, Role
from llmbuild.models.spec import AttentionSpec, BlockSpec, DecoderSpec, MlpSpec, Names, NormSpec


def parameters(spec: DecoderSpec) -> tuple[Parameter, ...]:
    """Every parameter before quantization, with its sources in the checkpoint."""
    return tuple(_decoder(spec))


def _decoder(spec: DecoderSpec) -> Iterator[Parameter]:
    names = spec.names
    embedding = _weight(names.embedding, (spec.vocab_size, spec.hidden_size), "embedding", names)
    yield embedding if spec.has_head else replace(embedding, also=names.head)
    if spec.positions:
        yield _weight(names.positions, (spec.positions + spec.positions_offset, spec.hidden_size), "embedding", names)
    for index, block in enumerate(spec.blocks):
        yield from _block(spec, block, f"{names.layers}.{index}")
    yield from _norm(names.final_norm, spec.hidden_size, spec.final_norm, names)
    if spec.has_head:
        sources = [names.embedding] if spec.tied_head else []
        head = _weight(names.head, (spec.vocab_size, spec.hidden_size), "head", names, sources)
        yield replace(head, unit_rows=spec.unit_head)
        if spec.head_bias:
            yield _bias(names.head, spec.vocab_size, names)


def _block(spec: DecoderSpec, block: BlockSpec, layer: str) -> Iterator[Parameter]:
    names = spec.names
    for slot in names.order:
        norm = block.norm(slot)
        if slot == "attention":
            yield from _attention(spec, block.attention, f"{layer}.{block.attention.name}")
        elif slot == "mlp":
            yield from _mlp(spec, block.mlp, f"{layer}.{block.mlp.name}")
        elif norm is not None:
            yield from _norm(f"{layer}.{getattr(names, slot)}", spec.hidden_size, norm, names)


def _attention(spec: DecoderSpec, attention: AttentionSpec, module: str) -> Iterator[Parameter]:
    names = spec.names
    shared = attention.heads // attention.kv_heads
    groupings = {
        "stacked": None,
        "by_head": (attention.heads, 1, 1, 1),
        "by_group": (attention.kv_heads, shared, 1, 1),
    }
    grouping = groupings[attention.stacking]
    for name, (features, parts) in attention.qkv_modules.items():
        sources = [f"{module}.{source}" for source in parts]
        shape = (features, spec.hidden_size)
        yield _weight(f"{module}.{name}", shape, "linear", names, sources, grouping, attention.transposed)
        if attention.qkv_bias:
            yield _bias(f"{module}.{name}", features, names, sources, grouping)
    shape = (spec.hidden_size, attention.heads * attention.head_dim)
    yield _weight(f"{module}.{attention.out}", shape, "linear", names, transposed=attention.transposed)
    if attention.out_bias:
        yield _bias(f"{module}.{attention.out}", spec.hidden_size, names)
    if attention.qk_norm is not None:
        for name, heads in ((attention.q_norm, attention.heads), (attention.k_norm, attention.kv_heads)):
            if attention.qk_norm_over == "each_head":
                each = [f"{module}.{name}.norms.{head}" for head in range(heads)]
                yield _weight(f"{module}.{name}", (heads * attention.head_dim,), "plain", names, each)
                continue
            if attention.qk_norm_over == "each_row":
                yield _weight(f"{module}.{name}", (heads, attention.head_dim), "plain", names)
                continue
            size = attention.head_dim * (heads if attention.qk_norm_over == "all_heads" else 1)
            yield from _norm(f"{module}.{name}", size, attention.qk_norm, names)


def _mlp(spec: DecoderSpec, mlp: MlpSpec, module: str) -> Iterator[Parameter]:
    names = spec.names
    for name, parts in mlp.up_modules.items():
        sources = [f"{module}.{source}" for source in parts]
        shape = (mlp.up_features, spec.hidden_size)
        yield _weight(f"{module}.{name}", shape, "linear", names, sources, transposed=mlp.transposed)
        if mlp.bias:
            yield _bias(f"{module}.{name}", mlp.up_features, names, sources, dtype=mlp.out_dtype)
    shape = (spec.hidden_size, mlp.intermediate)
    yield _weight(f"{module}.{mlp.down}", shape, "linear", names, transposed=mlp.transposed)
    if mlp.bias:
        yield _bias(f"{module}.{mlp.down}", spec.hidden_size, names, dtype=mlp.out_dtype)


def _norm(module: str, size: int, norm: NormSpec, names: Names) -> Iterator[Parameter]:
    if norm.weight:
        weight = _weight(module, (size,), "plain", names)
        yield replace(weight, offset=norm.offset)
    if norm.has_bias:
        yield _bias(module, size, names)


def _weight(
    module: str,
    shape: tuple[int, ...],
    role: Role,
    names: Names,
    sources: Sequence[str] = (),
    grouping: tuple[int, int, int, int] | None = None,
    transposed: bool = False,
) -> Parameter:
    origins = tuple(names.in_checkpoint(f"{source}.weight") for source in sources or (module,))
    return Parameter(f"{module}.weight", shape, role, origins, grouping, transposed)


def _bias(
    module: str,
    size: int,
    names: Names,
    sources: Sequence[str] = (),
    grouping: tuple[int, int, int, int] | None = None,
    dtype: Literal["float32"] | None = None,
) -> Parameter:
    origins = tuple(names.in_checkpoint(f"{source}.bias") for source in sources or (module,))
    return Parameter(f"{module}.bias", (size,), "plain", origins, grouping, dtype=dtype)
