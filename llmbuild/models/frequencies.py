"""The rotary embedding of a base and a scaling: how far each pair of elements of a head turns from one position to the next."""

from __future__ import annotations

import math
from collections.abc import Mapping

from llmbuild.canonical import Json
from llmbuild.models.spec import RopeSpec


def make_rope(
    theta: float, rotary_dim: int, scaling: Mapping[str, Json] | None = None, *, interleaved: bool = False
) -> RopeSpec:
    """Frequencies in radians for each of the `rotary_dim` / 2 pairs, with the scaling of Llama 3 where there is one."""
    plain = [float(theta) ** (-2 * index / rotary_dim) for index in range(rotary_dim // 2)]
    frequencies = plain if scaling is None else _llama3(plain, scaling)
    return RopeSpec(rotary_dim, tuple(frequencies), interleaved=interleaved, theta=theta, scaling=scaling)


def _llama3(plain: list[float], scaling: Mapping[str, Json]) -> list[float]:
    """Frequencies of less than `low` turns within the original length are divided by `factor`, those of more than `high` are
    left alone, and the ones between go over from one to the other."""
    factor, low, high, length = (
        float(str(scaling[name]))
        for name in ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
    )
    scaled = []
    for frequency in plain:
        turns = length * frequency / (2 * math.pi)
        share = min(max((turns - low) / (high - low), 0.0), 1.0)
        scaled.append((1 - share) * frequency / factor + share * frequency)
    return scaled
