"""The rotary embedding of a base and a scaling: how far each pair of elements of a head turns from one position to the next.

Each type of scaling is what transformers' function of this name in `ROPE_INIT_FUNCTIONS` computes.  Two of them depend on the
length of the text there, and here on that of the context, which the cache's keys are made for: `longrope` has one list of factors
for texts within the original length and one for longer ones, and `dynamic` raises the base by the length beyond it.  A model is
so what transformers computes in one run over a text of the context's length (with longrope, over any text of its class).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from llmbuild.canonical import Json
from llmbuild.models.spec import RopeSpec

Scaling = Mapping[str, Json]

LARGEST = 3e38
"""No float32 is much larger."""

ORIGINAL = "original_max_position_embeddings"


def make_rope(
    theta: float,
    rotary_dim: int,
    scaling: Scaling | None = None,
    *,
    context: int = 0,
    interleaved: bool = False,
) -> RopeSpec:
    """Frequencies in radians for each of the `rotary_dim` / 2 pairs, with a scaling of one of `TYPES` where there is one.

    `scaling` has checked numbers (`llmbuild.models.rope`), and `context` is the size of the context window.  Numbers may still
    make no frequencies: raises ArithmeticError.
    """
    if scaling is None:
        frequencies, factor = _plain(theta, rotary_dim), 1.0
    else:
        frequencies, factor = TYPES[str(scaling["rope_type"])](theta, rotary_dim, scaling, context)
    if not all(abs(value) < LARGEST for value in (*frequencies, factor)):
        raise OverflowError("a frequency is no number of float32")
    return RopeSpec(rotary_dim, tuple(frequencies), factor, interleaved, theta, scaling)


def is_long(scaling: Scaling, context: int) -> bool:
    """Whether longrope's factors are those for texts beyond the original length."""
    return context > _number(scaling, ORIGINAL)


def _number(scaling: Scaling, name: str, default: float | None = None) -> float:
    """A number of the scaling; null and 0 stand for the default where there is one."""
    return float(str((scaling.get(name) or default) if default is not None else scaling[name]))


def _plain(theta: float, dim: int) -> list[float]:
    return [float(theta) ** (-2 * index / dim) for index in range(dim // 2)]


def _linear(theta: float, dim: int, scaling: Scaling, _: int) -> tuple[list[float], float]:
    factor = _number(scaling, "factor")
    return [frequency / factor for frequency in _plain(theta, dim)], 1.0


def _llama3(theta: float, dim: int, scaling: Scaling, _: int) -> tuple[list[float], float]:
    """Frequencies of less than `low` turns within the original length are divided by `factor`, those of more than `high` are
    left alone, and the ones between go over from one to the other.  Where `low` is above `high`, none is between."""
    factor, low, high, length = (
        _number(scaling, name) for name in ("factor", "low_freq_factor", "high_freq_factor", ORIGINAL)
    )
    scaled = []
    for frequency in _plain(theta, dim):
        turns = length * frequency / (2 * math.pi)
        share = 0.0 if turns < low else 1.0 if turns > high else (turns - low) / (high - low)
        scaled.append((1 - share) * frequency / factor + share * frequency)
    return scaled, 1.0


def _yarn(theta: float, dim: int, scaling: Scaling, _: int) -> tuple[list[float], float]:
    """Pairs up to that which turns `beta_fast` times within the original length are left alone, those after that of `beta_slow`
    are divided by `factor`, with a ramp between the two; cosine and sine grow with the logarithm of `factor`."""
    factor, length = _number(scaling, "factor"), _number(scaling, ORIGINAL)
    first, last = (
        dim * math.log(length / (turns * 2 * math.pi)) / (2 * math.log(theta))
        for turns in (_number(scaling, "beta_fast", 32), _number(scaling, "beta_slow", 1))
    )
    if scaling.get("truncate", True):
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, dim - 1)
    if first == last:
        last += 0.001
    scaled = []
    for index, frequency in enumerate(_plain(theta, dim)):
        share = min(max((index - first) / (last - first), 0.0), 1.0)
        scaled.append(share * frequency / factor + (1 - share) * frequency)
    if scaling.get("attention_factor") is not None:
        return scaled, _number(scaling, "attention_factor")
    if scaling.get("mscale") and scaling.get("mscale_all_dim"):
        return scaled, _growth(factor, _number(scaling, "mscale")) / _growth(factor, _number(scaling, "mscale_all_dim"))
    return scaled, _growth(factor, 1.0)


def _growth(factor: float, by: float) -> float:
    return 1.0 if factor <= 1 else 0.1 * by * math.log(factor) + 1.0


def _longrope(theta: float, dim: int, scaling: Scaling, context: int) -> tuple[list[float], float]:
    """A divisor for each pair; cosine and sine grow by how much longer than the original length texts may be."""
    divisors = scaling["long_factor" if is_long(scaling, context) else "short_factor"]
    assert isinstance(divisors, list | tuple)
    pairs = zip(_plain(theta, dim), divisors, strict=True)
    scaled = [frequency / float(str(divisor)) for frequency, divisor in pairs]
    if scaling.get("attention_factor") is not None:
        return scaled, _number(scaling, "attention_factor")
    factor = _number(scaling, "factor")
    return scaled, 1.0 if factor <= 1 else math.sqrt(1 + math.log(factor) / math.log(_number(scaling, ORIGINAL)))


def _dynamic(theta: float, dim: int, scaling: Scaling, context: int) -> tuple[list[float], float]:
    """The base that a text of the context's length is given; within the original length it is the plain one."""
    factor, length = _number(scaling, "factor"), _number(scaling, ORIGINAL)
    growth = factor * max(context, length) / length - (factor - 1)
    return _plain(theta * growth ** (dim / (dim - 2)), dim), 1.0


def _ntk_alpha(theta: float, dim: int, scaling: Scaling, _: int) -> tuple[list[float], float]:
    """Hunyuan's: a base that is larger by a power of `alpha`, whatever the length."""
    return _plain(theta * _number(scaling, "alpha") ** (dim / (dim - 2)), dim), 1.0


def _proportional(theta: float, dim: int, scaling: Scaling, _: int) -> tuple[list[float], float]:
    """The first share of the pairs turns, as fast as if all did, and the others do not."""
    factor, share = _number(scaling, "factor", 1.0), _number(scaling, "partial_rotary_factor", 1.0)
    turning = int(share * dim // 2)
    return [frequency / factor if i < turning else 0.0 for i, frequency in enumerate(_plain(theta, dim))], 1.0


TYPES: Mapping[str, Callable[[float, int, Scaling, int], tuple[list[float], float]]] = {
    "linear": _linear,
    "llama3": _llama3,
    "yarn": _yarn,
    "longrope": _longrope,
    "dynamic": _dynamic,
    "ntk-alpha": _ntk_alpha,
    "proportional": _proportional,
}
"""The types of scaling: frequencies and the factor of cosine and sine, from a base, a number of elements, a scaling and a
context."""
