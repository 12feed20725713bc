"""GGUF's tensors, turned back into those of Hugging Face.

GGUF has one name for each place of a decoder, so the names and the inverse of what llama.cpp's converter does to each follow from
a family's description of its decoder.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from llmbuild.checkpoints.tensor import TensorInfo
from llmbuild.errors import InputError
from llmbuild.models.gguf.architecture import GgufArchitecture
from llmbuild.models.gguf.steps import Grouped, Less, Neighbours, Row, Rows, Step, Transposed
from llmbuild.models.gguf.values import undivided
from llmbuild.models.spec import AttentionSpec, BlockSpec, DecoderSpec, NormSpec

if TYPE_CHECKING:
    import numpy as np

_UNUSED = re.compile(r"rope_(freqs|factors_long|factors_short)\.weight|blk\.\d+\.attn_rot_embd\.weight")
"""Rotary frequencies: part of the configuration."""

_NAME = re.compile(r"(?:blk\.(\d+)\.)?(\w+)\.(weight|bias)")


@dataclass(frozen=True, slots=True)
class Restored:
    """A Hugging Face tensor: the GGUF tensors whose rows it has, and the inverse of what the converter did."""

    sources: tuple[str, ...]
    steps: tuple[Step, ...]
    shape: tuple[int, ...]
    dtype: str

    def restore(self, values: Sequence[np.ndarray]) -> np.ndarray:
        """The tensor, of the values of its sources."""
        import numpy as np

        value = values[0] if len(values) == 1 else np.concatenate([each.astype(self.dtype) for each in values])
        for step in self.steps:
            value = step(value)
        return value


@dataclass(frozen=True, slots=True)
class _Place:
    """A module of a decoder, or of a layer: its part of the name in GGUF, or parts whose rows it has together."""

    stems: tuple[str, ...]
    module: str
    steps: tuple[Step, ...] = ()
    less: float = 0.0
    """What the converter added to the weight."""


def restored_tensors(
    tensors: Mapping[str, TensorInfo], spec: DecoderSpec, gguf: GgufArchitecture, where: Path
) -> Mapping[str, Restored]:
    """By Hugging Face names, in the order of `tensors` (GGUF's).  Raises InputError for a tensor that the architecture lacks."""
    there = {match[2] for name in tensors if (match := _NAME.fullmatch(name)) is not None}
    top = tuple(_top(spec))
    layer = cache(lambda block: tuple(_layer(block, spec, gguf, there)))
    found: dict[str, Restored] = {}
    for name in tensors:
        if _UNUSED.fullmatch(name):
            continue
        match = _NAME.fullmatch(name)
        places: Sequence[_Place] = ()
        if match is not None and (match[1] is None or int(match[1]) < len(spec.blocks)):
            places = top if match[1] is None else layer(spec.blocks[int(match[1])])
            places = [place for place in places if match[2] in place.stems]
        if match is None or not places:
            raise InputError(
                f"tensor {name!r} is not one of architecture {gguf.name}",
                where=str(where),
                why="the file uses a variant of the architecture that llmbuild does not know",
                fix="use the original weights of the model",
            )
        prefix, start = ("", "") if match[1] is None else (f"blk.{match[1]}.", f"{spec.names.layers}.{match[1]}.")
        for place in places:
            full = spec.names.in_checkpoint(f"{start}{place.module}.{match[3]}")
            if full not in found:
                sources = [f"{prefix}{stem}.{match[3]}" for stem in place.stems]
                found[full] = _restored(tensors, sources, place, weight=match[3] == "weight", where=where)
    return found


def _restored(
    tensors: Mapping[str, TensorInfo], sources: Sequence[str], place: _Place, *, weight: bool, where: Path
) -> Restored:
    missing = next((source for source in sources if source not in tensors), None)
    if missing is not None:
        raise InputError(
            f"tensor {missing!r} is missing", where=str(where), why=f"{', '.join(sources)} are stored together"
        )
    infos = [tensors[source] for source in sources]
    steps = (*place.steps, Less(place.less)) if weight and place.less else place.steps
    shape = (sum(info.shape[0] for info in infos), *infos[0].shape[1:])
    dtypes = {info.dtype for info in infos}
    try:
        if any(info.shape[1:] != shape[1:] for info in infos):
            raise ValueError("rows of different length")
        for step in steps:
            shape = step.shape(shape)
    except ValueError:
        raise undivided(sources[0], infos[0].shape[0], where) from None
    dtype = dtypes.pop() if len(dtypes) == 1 and not (weight and place.less) else "float32"
    return Restored(tuple(sources), steps, shape, dtype)


def _top(spec: DecoderSpec) -> Iterator[_Place]:
    yield _Place(("token_embd",), spec.names.embedding)
    yield _Place(("output_norm",), spec.names.final_norm, less=_added(spec.final_norm))
    yield _Place(("output",), spec.names.head)
    if spec.positions:
        yield _Place(("position_embd",), spec.names.positions)


def _layer(block: BlockSpec, spec: DecoderSpec, gguf: GgufArchitecture, there: set[str]) -> Iterator[_Place]:
    """The places of a layer; `there` are the parts of names that the file has."""
    names = spec.names
    norms = (
        ("attn_norm", names.before_attention, block.before_attention),
        ("post_attention_norm", names.after_attention, block.after_attention),
        (gguf.before_mlp, names.before_mlp, block.before_mlp),
        ("post_ffw_norm", names.after_mlp, block.after_mlp),
    )
    for stem, module, norm in norms:
        if norm is not None:
            yield _Place((stem,), module, less=_added(norm))
    yield from _qkv(block.attention, gguf, there)
    yield from _qk_norms(block.attention)
    attention, mlp = block.attention, block.mlp
    turned = (Transposed(),) if attention.transposed else ()
    yield _Place(("attn_output",), f"{attention.name}.{attention.out}", turned)
    stems = ("ffn_gate", "ffn_up") if mlp.gated and "ffn_gate" in there else ("ffn_up",)
    stems = stems[::-1] if mlp.gate_last else stems
    turned = (Transposed(),) if mlp.transposed else ()
    if len(mlp.up_sources) == len(stems):
        for stem, module in zip(stems, mlp.up_sources, strict=True):
            yield _Place((stem,), f"{mlp.name}.{module}", turned)
    else:
        yield _Place(stems, f"{mlp.name}.{mlp.up_sources[0]}", turned)
    yield _Place(("ffn_down",), f"{mlp.name}.{mlp.down}", turned)


def _qkv(attention: AttentionSpec, gguf: GgufArchitecture, there: set[str]) -> Iterator[_Place]:
    """Queries, keys and values, which are one tensor or three, in the file as in the checkpoint."""
    groups, size = attention.kv_heads, attention.head_dim
    counts = (attention.heads, groups, groups)
    turned = (Transposed(),) if attention.transposed else ()
    starts = [sum(counts[:part]) * size for part in range(4)]
    neighbours = [Neighbours(count) for count in counts[:2]] if gguf.neighbours else []
    fused = "attn_qkv" in there
    stems = ("attn_qkv",) if fused else ("attn_q", "attn_k", "attn_v")
    modules = [f"{attention.name}.{source}" for source in attention.qkv_sources]
    if len(modules) == 1:
        steps: list[Step] = [
            Rows(starts[part], starts[part + 1], starts[3], order) for part, order in enumerate(neighbours)
        ]
        if attention.stacking != "stacked":
            steps.append(Grouped(groups, attention.heads // groups, size))
        yield _Place(stems, modules[0], (*steps, *turned))
        return
    for part, module in enumerate(modules):
        order = neighbours[part : part + 1]
        cut = [Rows(starts[part], starts[part + 1], starts[3])] if fused else []
        yield _Place((stems[0 if fused else part],), module, (*cut, *order, *turned))


def _qk_norms(attention: AttentionSpec) -> Iterator[_Place]:
    if attention.qk_norm is None:
        return
    parts = (("attn_q_norm", attention.q_norm, attention.heads), ("attn_k_norm", attention.k_norm, attention.kv_heads))
    for stem, module, heads in parts:
        if attention.qk_norm_over == "each_head":
            for head in range(heads):
                yield _Place((stem,), f"{attention.name}.{module}.norms.{head}", (Row(head, heads),))
        else:
            yield _Place((stem,), f"{attention.name}.{module}", less=_added(attention.qk_norm))


def _added(norm: NormSpec) -> float:
    """The converter adds to a weight what every use of it would add."""
    return norm.offset or norm.shift


def weights_by_name(names: Collection[str], spec: DecoderSpec, gguf: GgufArchitecture) -> Mapping[str, tuple[str, ...]]:
    """Of each weight in Hugging Face's names those of these GGUF names that it consists of, where there are any."""
    there = {match[2] for name in names if (match := _NAME.fullmatch(name)) is not None}
    found: dict[str, tuple[str, ...]] = {}
    layers = [(f"blk.{index}.", f"{spec.names.layers}.{index}.", block) for index, block in enumerate(spec.blocks)]
    places = [("", "", place) for place in _top(spec)]
    places += [(prefix, start, place) for prefix, start, block in layers for place in _layer(block, spec, gguf, there)]
    for prefix, start, place in places:
        known = tuple(name for stem in place.stems if (name := f"{prefix}{stem}.weight") in names)
        if known:
            found[spec.names.in_checkpoint(f"{start}{place.module}.weight")] = known
    return found
