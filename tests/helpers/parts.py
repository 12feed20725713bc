"""Which parts of a decoder a family has, and the few families that have every part: what tests of devices build in CI.

A part is a field of spec.py whose value is not the usual one.  So a family with a new part is built without being named, and
one that has nothing new costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import MISSING, fields, is_dataclass, replace
from functools import cache
from typing import Any

from llmbuild.models.family import Overrides
from llmbuild.models.registry import families, infer_model_type
from llmbuild.models.spec import AttentionSpec, BlockSpec, DecoderSpec, Names
from tests.helpers.variants import in_ci, variants

NAMES = {"name", "qkv", "qkv_sources", "out", "q_norm", "k_norm", "up", "up_sources", "down"}
SIZES = {"heads", "kv_heads", "head_dim", "intermediate", "vocab_size", "hidden_size", "eps", "positions_offset"}
ROPE = {"rotary_dim", "frequencies", "theta", "scaling"}

HEADS = {"heads": 4, "kv_heads": 2, "head_dim": 32, "window": 8, "softcap": 5.0}
"""What all layers of one decoder have in common."""


def decoder(name: str) -> DecoderSpec:
    """A variant's description."""
    family = families()[infer_model_type(variants()[name])]
    return family.decoder(family.configure(variants()[name], Overrides()))


@cache
def parts(name: str) -> frozenset[str]:
    """A variant's parts, such as "attention.window" or "attention.rope.interleaved=True"."""
    spec = decoder(name)
    found = set(_parts(replace(spec, blocks=(), names=Names())))
    for block in set(spec.blocks):
        found |= set(_parts(block))
        rope = block.attention.rope
        if rope is not None and rope.rotary_dim < block.attention.head_dim:
            found.add("attention.rope, of a part of a head")
        if block.attention.qk_norm is not None:
            found.add(f"attention.qk_norm of {block.attention.qk_norm.kind} over {block.attention.qk_norm_over}")
    if len({block.attention.rope for block in spec.blocks}) > 1:
        found.add("attention.rope, not of all layers")
    return frozenset(found)


@cache
def covering(wanted: Callable[[str], bool] = lambda part: True) -> tuple[str, ...]:
    """Few of the variants that CI builds, which have all wanted parts together."""
    names = [name for name in variants() if in_ci(name)]
    left = {part for name in names for part in parts(name) if wanted(part)}
    chosen = []
    while left:
        chosen.append(max(names, key=lambda name: len(parts(name) & left)))
        left -= parts(chosen[-1])
    return tuple(chosen)


def of_kernels(part: str) -> bool:
    """Whether a part is in attention, or in the order of a layer: the rest of a layer is products and elementwise functions."""
    there = part.startswith(("attention.", "residual=", "positions"))
    return there and not of_weights(part) and not part.endswith("bias=True")


def of_weights(part: str) -> bool:
    """Whether a part bears on how weights are stored."""
    words = (
        "stacking",
        "transposed",
        "joined",
        "tied_head",
        "copied_head",
        "head_bias",
        "unit_head",
        "out_dtype",
        "offset",
    )
    return any(word in part for word in words)


def of_layers(part: str) -> bool:
    """Whether a part bears on the code of a layer: not what is done when weights are converted, nor what is around the layers."""
    there = "." in part or part in ("before_attention=None", "before_mlp=None", "residual=parallel", "residual_scale")
    return (
        there
        and not part.endswith("bias=True")
        and not any(word in part for word in ("stacking", "transposed", "offset"))
    )


def composed() -> DecoderSpec:
    """A decoder with every part: its layers are those of all the families that are needed for it."""
    specs = [decoder(name) for name in covering()]
    blocks = dict.fromkeys(_with_heads(block) for name in covering(of_layers) for block in decoder(name).blocks)
    around = {
        field.name: value
        for field in fields(DecoderSpec)
        for value in (getattr(spec, field.name) for spec in specs)
        if field.default not in (MISSING, value) and field.name != "tied_head"
    }
    learned = {"positions": 128, "positions_offset": 2}
    return DecoderSpec(160, 64, tuple(blocks), specs[0].final_norm, **{**around, **learned})


def _parts(value: Any, path: str = "") -> Iterator[str]:
    for field in fields(value):
        part, found = f"{path}{field.name}", getattr(value, field.name)
        if field.name in NAMES | SIZES | ROPE or found == field.default or found in ((), Names()):
            continue
        if is_dataclass(found):
            yield from (part, *_parts(found, f"{part}."))
        elif isinstance(found, float) or (isinstance(found, int) and not isinstance(found, bool)):
            yield part
        else:
            yield f"{part}={found}"


def _with_heads(block: BlockSpec) -> BlockSpec:
    window = None if block.attention.window is None else HEADS["window"]
    names = {field.name: field.default for field in fields(AttentionSpec) if field.name in NAMES}
    return replace(block, attention=replace(block.attention, **{**names, **HEADS, "window": window}))
