"""The scaling of a RoPE as a configuration has it, checked to make frequencies."""

from __future__ import annotations

from collections.abc import Mapping

from llmbuild.canonical import Json
from llmbuild.models.frequencies import ORIGINAL, is_long, make_rope
from llmbuild.models.rope import check_scaling
from llmbuild.models.values import ConfigValues


def read_scaling(
    source: ConfigValues, theta: float, rotary_dim: int, context: int, *, rolling: bool = False
) -> Mapping[str, Json] | None:
    """`rope_scaling`, or None, for `rotary_dim` elements of a head and a context window; raises InputError.

    A `rolling` cache computes RoPE itself, for two types of scaling.
    """
    _, found = source.get("rope_scaling")
    if found is None:
        return None
    if not isinstance(found, Mapping):
        raise source.error("rope_scaling", f"must be an object, not {found!r}")
    kind = found.get("rope_type", found.get("type"))
    if kind in (None, "default"):
        return None
    scaling = {"rope_type": kind} | {name: value for name, value in found.items() if name != "type"}
    longest = scaling.get("max_position_embeddings")
    if kind == "longrope" and "factor" not in scaling and isinstance(longest, int):
        # MLC has the longest text there, of which the factor follows.
        original = source.but(scaling).integer(ORIGINAL)
        scaling = {name: value for name, value in scaling.items() if name != "max_position_embeddings"}
        scaling["factor"] = longest / original
    check_scaling(source, "rope_scaling", scaling)
    if rolling and kind != "llama3":
        raise source.error(
            "rope_scaling",
            f"of type {kind} does not work with a sliding window",
            why="a rolling cache computes RoPE itself, with scaling of type llama3 or none",
            fix="set a context-window-size within the window, or sliding-window-size = -1",
        )
    if kind == "longrope":
        _check_factors(source, scaling, rotary_dim)
    try:
        make_rope(theta, rotary_dim, scaling, context=context)
    except ArithmeticError:
        raise source.error(
            "rope_scaling",
            f"of type {kind} makes no frequencies of the base {theta}",
            why="its numbers lead to a division by zero, or to one that is too large",
            fix="correct config.json",
        ) from None
    _note_class(source, scaling, context)
    return scaling


def _check_factors(source: ConfigValues, scaling: Mapping[str, Json], rotary_dim: int) -> None:
    for name in ("short_factor", "long_factor"):
        values = scaling[name]
        if isinstance(values, list | tuple) and len(values) != rotary_dim // 2:
            raise source.error(
                f"rope_scaling.{name}",
                f"has {len(values)} numbers, and {rotary_dim} rotated elements of a head need {rotary_dim // 2}",
            )


def _note_class(source: ConfigValues, scaling: Mapping[str, Json], context: int) -> None:
    """Say for which length of text the frequencies are, where transformers goes by that of each text."""
    original = scaling.get(ORIGINAL)
    if scaling["rope_type"] == "longrope":
        made = f"for texts of {'more than' if is_long(scaling, context) else 'at most'} {original} tokens"
    elif scaling["rope_type"] == "dynamic":
        made = (
            f"for a text of {context} tokens"
            if context > int(str(original))
            else f"for texts of at most {original} tokens"
        )
    else:
        return
    source.note(
        f"RoPE of type {scaling['rope_type']} is built {made}, as the context window has {context}; "
        "transformers goes by the length of each text"
    )
