"""The frequencies of a rotary embedding: how far each pair of elements of a head turns from one position to the next."""

from __future__ import annotations

import math

from llmbuild.models.spec import RopeSpec


def frequencies(rope: RopeSpec) -> list[float]:
    """Radians for each of the `rotary_dim` / 2 pairs, with the scaling of Llama 3 where the rope has it."""
    plain = [float(rope.theta) ** (-2 * index / rope.rotary_dim) for index in range(rope.rotary_dim // 2)]
    if rope.scaling is None:
        return plain
    factor, low, high, length = (
        float(str(rope.scaling[name]))
        for name in ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
    )
    scaled = []
    for frequency in plain:
        turns = length * frequency / (2 * math.pi)
        share = min(max((turns - low) / (high - low), 0.0), 1.0)
        scaled.append((1 - share) * frequency / factor + share * frequency)
    return scaled
