"""What families share when they describe a decoder of a configuration."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from functools import cache
from typing import TypeVar

from llmbuild.models.family import ModelConfig
from llmbuild.models.frequencies import make_rope
from llmbuild.models.spec import BlockSpec, RopeSpec

T = TypeVar("T", bound=Hashable)


def rope_of(c: ModelConfig, rotary_dim: int | None = None, *, interleaved: bool = False) -> RopeSpec:
    """The one RoPE of a configuration, of whole heads unless a number of elements is given."""
    theta = c.fields.get("position_embedding_base", c.fields.get("rope_theta"))
    size = c.head_dim if rotary_dim is None else rotary_dim
    return make_rope(theta, size, c.rope_scaling, context=c.context_window_size, interleaved=interleaved)


def blocks_of(kinds: Sequence[T], block: Callable[[T], BlockSpec]) -> tuple[BlockSpec, ...]:
    """One block for each layer's kind; layers of one kind share the object."""
    make = cache(block)
    return tuple(make(kind) for kind in kinds)
