"""The scaling of RoPE as GGUF's metadata and tensors imply it, in the spelling of config.json."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Mapping, Sequence

from llmbuild.canonical import Json
from llmbuild.errors import InputError
from llmbuild.models.gguf.keys import OF_YARN, YARN_NAMES
from llmbuild.models.gguf.values import GgufValues, shortest

FREQUENCIES = "rope_freqs.weight"
LONG, SHORT = "rope_factors_long.weight", "rope_factors_short.weight"
FACTORS = (FREQUENCIES, LONG, SHORT)
"""Tensors of divisors of the frequencies: part of the configuration, not of the weights."""

Factors = Mapping[str, Sequence[float]]


def rope_scaling(values: GgufValues, theta: float, factors: Factors) -> dict[str, Json] | None:
    """`factors` are the contents of those tensors of `FACTORS` that the file has.  Raises InputError."""
    # Where the kind is not named it is linear; where it is "none", a factor does not count.
    kind = values.get("rope.scaling.type", "linear")
    if not isinstance(kind, str):
        raise values.wrong("rope.scaling.type", f"{reprlib.repr(kind)} is not a name")
    name = "rope.scaling.factor" if values.says("rope.scaling.factor") else "rope.scale_linear"
    # 0 is "not set".
    factor = values.optional_number(name) or 1.0
    scaled = kind not in ("none", "longrope") and (kind != "linear" or factor != 1.0)
    for tensor in (FREQUENCIES, LONG):
        if scaled and any(each != 1.0 for each in factors.get(tensor, ())):
            beside = tensor.removesuffix(".weight")
            raise values.wrong("rope.scaling.type", f"it is {kind!r}, and the file has {beside} beside it")
    if LONG in factors and SHORT in factors:
        return _longrope(values, factors)
    if any(each != 1.0 for each in factors.get(FREQUENCIES, ())):
        return llama3_scaling(values, theta, factors[FREQUENCIES])
    if kind == "longrope":
        raise values.wrong("rope.scaling.type", "it is 'longrope', and the file has no factors for it")
    if not scaled:
        return None
    scaling: dict[str, Json] = {"rope_type": kind, "factor": factor}
    original = values.integer("rope.scaling.original_context_length", 0)
    if original:
        scaling["original_max_position_embeddings"] = original
    return scaling | _of_yarn(values) if kind == "yarn" else scaling


def _of_yarn(values: GgufValues) -> dict[str, Json]:
    read: dict[str, Json] = {}
    for key, neutral in OF_YARN.items():
        if not values.says(key):
            continue
        value = values.get(key, None)
        if neutral is None or (value not in neutral and key in YARN_NAMES):
            read[YARN_NAMES.get(key, key.removeprefix("rope.scaling.yarn_"))] = values.number(key)
        elif value not in neutral:
            raise values.wrong(key, f"it is {reprlib.repr(value)}, which is not supported")
    # The other of the two is 1 in llama.cpp, and has no key.
    return read | {"mscale": 1.0} if "mscale_all_dim" in read else read


def _longrope(values: GgufValues, factors: Factors) -> dict[str, Json]:
    """The factor of cosine and sine is named only where it is not the one that follows from the two lengths."""
    longest = values.integer("context_length")
    original = values.integer("rope.scaling.original_context_length", longest) or longest
    scaling: dict[str, Json] = {
        "rope_type": "longrope",
        "short_factor": [shortest(value) for value in factors[SHORT]],
        "long_factor": [shortest(value) for value in factors[LONG]],
        "original_max_position_embeddings": original,
    }
    usual = math.sqrt(1 + math.log(longest / original) / math.log(original)) if longest > original > 1 else 1.0
    given = values.number("rope.scaling.attn_factor", 1.0)
    return scaling if math.isclose(given, usual, rel_tol=1e-6) else scaling | {"attention_factor": given}


def llama3_scaling(values: GgufValues, theta: float, factors: Sequence[float]) -> dict[str, Json]:
    """Llama 3's scaling from the divisors of the frequencies, which is all that GGUF keeps of it.

    Between the frequencies left alone and those divided by `factor`, 1/divisor is linear in the frequency.  The line has two
    parameters and the configuration three, of which only two matter; `low_freq_factor` is taken as 1, as all published
    models have it.  The result must reproduce the file's divisors to a relative 1e-4.
    """
    count = len(factors)
    known = theta > 1 and all(1.0 <= factor < math.inf for factor in factors)
    frequencies = [theta ** (-index / count) for index in range(count)]
    factor = shortest(max(factors))
    candidates = _llama3_candidates(frequencies, factors, factor) if known else []
    for high, original in candidates:
        scaling: dict[str, Json] = {
            "rope_type": "llama3",
            "factor": factor,
            "low_freq_factor": 1.0,
            "high_freq_factor": high,
            "original_max_position_embeddings": original,
        }
        if (
            known
            and high > 1
            and all(
                math.isclose(_llama3_divisor(frequency, factor, high, original), wanted, rel_tol=1e-4)
                for frequency, wanted in zip(frequencies, factors, strict=True)
            )
        ):
            return scaling
    raise InputError(
        "the rotary frequencies of the GGUF file (rope_freqs) are of an unknown kind",
        where=str(values.path),
        why="they are not those of Llama 3's rope scaling",
        fix="use the original weights of the model",
    )


def _llama3_candidates(frequencies: list[float], factors: Sequence[float], factor: float) -> list[tuple[float, int]]:
    """Pairs of (high_freq_factor, original context) to try, the best founded first."""
    smooth = [
        (frequency, (1 / divisor - 1 / factor) / (1 - 1 / factor))
        for frequency, divisor in zip(frequencies, factors, strict=True)
        if 1.0 + 1e-5 < divisor < factor * (1 - 1e-5)
    ]
    found: list[tuple[float, int]] = []
    if len(smooth) >= 2:
        # smooth = frequency * original / (2 pi (high - 1)) - 1 / (high - 1)
        (first, above), (last, below) = smooth[0], smooth[-1]
        slope = (above - below) / (first - last) if first != last else 0.0
        offset = first * slope - above
        # A context of 2^53 tokens or more is none, and neither is one of infinitely many.
        if offset > 1e-9 and abs(2 * math.pi * slope / offset) < 1 << 53:
            high, original = 1 + 1 / offset, round(2 * math.pi * slope / offset)
            found += [(float(round(high)), original), (high, original)]
    # A small head has few frequencies, or none, between the two ends: then 4 is assumed, which all published models have.
    found += [
        (4.0, round((3 * value + 1) * 2 * math.pi / frequency)) for frequency, value in smooth[:1] if frequency > 1e-12
    ]
    return [*found, *((4.0, 1 << power) for power in range(13, 21)), *((4.0, 1 << power) for power in range(12, 2, -1))]


def _llama3_divisor(frequency: float, factor: float, high: float, original: int) -> float:
    periods = original * frequency / (2 * math.pi)
    smooth = min(max((periods - 1) / (high - 1), 0.0), 1.0)
    return 1 / ((1 - smooth) / factor + smooth)
