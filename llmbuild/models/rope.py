"""RoPE as transformers reads it of a config.json, where a base, a share and a scaling have several places each."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from llmbuild.canonical import Json
from llmbuild.models.config_classes import ConfigClass
from llmbuild.models.values import ConfigValues, shown

ORIGINAL = "original_max_position_embeddings"
_FACTORS = ("factor", "low_freq_factor", "high_freq_factor")


@dataclass(frozen=True, slots=True)
class Rope:
    """A configuration's RoPE: base, scaling (of rope_type "llama3", or none) and the rotated share of a head."""

    theta: float
    scaling: Mapping[str, Json] | None
    partial: float


def resolve_rope(source: ConfigValues, like: ConfigClass, positions: int) -> Rope:
    """`positions` is the resolved max_position_embeddings, the default of Llama 3's original length.

    A value that another place overrides is named in a note.  Raises InputError for values that mean nothing, for values of
    which transformers knows no winner, and for the types of scaling that are not supported.
    """
    place, parameters = _parameters(source)
    theta = _placed(source, place, parameters, "rope_theta", like.theta, like.default_theta)
    for name in {"rope_theta", "rotary_emb_base"} - {like.theta}:
        _unread(source, name, theta, like)
    mlc = source.values.get("position_embedding_base")
    if mlc not in (None, 0, theta):
        raise source.error(
            "position_embedding_base",
            f"is {shown(mlc)}, but the RoPE base of the checkpoint is {shown(theta)}",
            why="only MLC reads position_embedding_base, and only transformers the other",
            fix="keep the one that the weights were trained with",
        )
    kind = _kind(source, place, parameters)
    partial = _partial(source, place, parameters, like, kind)
    return Rope(theta, _scaling(source, place, parameters, kind, positions), partial)


def check_scaling(source: ConfigValues, place: str, scaling: Mapping[str, Json]) -> None:
    """Raise InputError unless a scaling is one of Llama 3 with usable numbers."""
    kind = scaling.get("rope_type")
    if kind != "llama3":
        raise source.error(
            f"{place}.rope_type",
            f"RoPE scaling '{kind}' is not supported for {source.model_type}",
            why="the types default, llama3, and linear by a factor of 1 are",
        )
    inner = source.but({f"{place}.{name}": value for name, value in scaling.items()})
    for name in _FACTORS:
        inner.number(f"{place}.{name}")
    inner.integer(f"{place}.{ORIGINAL}")
    if scaling["low_freq_factor"] == scaling["high_freq_factor"]:
        raise source.error(f"{place}.high_freq_factor", "must differ from low_freq_factor")


def _parameters(source: ConfigValues) -> tuple[str, Mapping[str, Json]]:
    """The object that counts, with its name: `rope_scaling` replaces `rope_parameters` whole."""
    found: dict[str, Mapping[str, Json]] = {}
    for name in ("rope_scaling", "rope_parameters"):
        value = source.values.get(name)
        if value is not None and not isinstance(value, Mapping):
            raise source.error(name, f"must be an object, not {shown(value)}")
        if value:
            found[name] = value
    if not found:
        return "rope_parameters", {}
    place, parameters = next(iter(found.items()))
    if len(found) == 2 and found["rope_parameters"] != parameters:
        source.note(
            f"config.json: rope_scaling counts, and rope_parameters = {shown(found['rope_parameters'])} beside it does not, "
            "as in transformers"
        )
    nested = next((name for name, value in parameters.items() if isinstance(value, Mapping)), None)
    if nested is not None:
        raise source.error(
            f"{place}.{nested}",
            f"RoPE by type of layer is not supported for {source.model_type}",
            why="transformers' class of this family has one RoPE for all layers",
            fix=f"write the values of one type into {place} itself",
        )
    return place, parameters


def _placed(
    source: ConfigValues,
    place: str,
    parameters: Mapping[str, Json],
    inner: str,
    outer: str,
    default: float,
) -> float:
    """A number of the object, else the one beside it, else the default; null in the place that counts is an error."""
    if inner in parameters:
        value = _number(source, f"{place}.{inner}", parameters[inner])
        beside = source.values.get(outer)
        if beside is not None and beside != value:
            source.note(
                f"config.json: {place}.{inner} = {shown(value)} counts, and {outer} = {shown(beside)} does not, "
                "as in transformers"
            )
        return value
    return _number(source, outer, source.values[outer]) if outer in source.values else default


def _number(source: ConfigValues, key: str, value: Json) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
        raise source.error(key, f"must be a number above 0, not {shown(value)}")
    return value


def _unread(source: ConfigValues, name: str, value: float, like: ConfigClass) -> None:
    other = source.values.get(name)
    if other is not None and other != value:
        source.note(
            f"config.json: {name} = {shown(other)} is not read, as {like.name} of transformers does not read it"
        )


def _kind(source: ConfigValues, place: str, parameters: Mapping[str, Json]) -> str:
    name = "rope_type" if "rope_type" in parameters else "type"
    kind = parameters.get(name, "default")
    if not isinstance(kind, str):
        raise source.error(f"{place}.{name}", f"must be a string, not {shown(kind)}")
    older = parameters.get("type")
    if older not in (None, kind):
        source.note(
            f"config.json: {place}.rope_type = {shown(kind)} counts, and {place}.type = {shown(older)} does not, "
            "as in transformers"
        )
    return kind


def _partial(
    source: ConfigValues,
    place: str,
    parameters: Mapping[str, Json],
    like: ConfigClass,
    kind: str,
) -> float:
    inner = "partial_rotary_factor"
    if like.partial is not None:
        share = _placed(source, place, parameters, inner, like.partial, like.default_partial)
        _unread(source, inner, share, like)
        return share
    key = f"{place}.{inner}" if parameters.get(inner) is not None else inner
    value = parameters.get(inner, source.values.get(inner))
    if value is None or value == 1:
        return 1.0
    if kind != "default":
        raise source.error(
            key,
            f"is {shown(value)}, but heads are rotated whole in a {source.model_type} model",
            why=f"transformers' frequencies for {kind} would be too few",
            fix="remove it if the weights were trained without it",
        )
    source.note(
        f"config.json: {key} = {shown(value)} is not read, as the model of {like.name} does not read it in transformers"
    )
    return 1.0


def _scaling(
    source: ConfigValues,
    place: str,
    parameters: Mapping[str, Json],
    kind: str,
    positions: int,
) -> Mapping[str, Json] | None:
    settings = {
        name: value
        for name, value in parameters.items()
        if name not in ("rope_theta", "partial_rotary_factor", "type", "rope_type")
    }
    if kind == "linear" and settings.get("factor") == 1:
        return None
    if kind == "default":
        unread = {name: value for name, value in settings.items() if value is not None}
        if unread:
            source.note(f"config.json: {shown(unread)} in {place} is not read, as its rope_type is default")
        return None
    scaling: dict[str, Json] = {"rope_type": kind}
    scaling |= {name: value for name, value in settings.items() if name in (*_FACTORS, ORIGINAL)}
    if kind == "llama3":
        if ORIGINAL in source.values:
            outer = source.values[ORIGINAL]
            if outer is None:
                raise source.error(ORIGINAL, "is null, which transformers cannot compute with", fix="remove the key")
            if scaling.setdefault(ORIGINAL, outer) != outer:
                source.note(
                    f"config.json: {ORIGINAL} = {shown(outer)} counts, and the {shown(scaling[ORIGINAL])} in {place} "
                    "does not, as in transformers"
                )
            scaling[ORIGINAL] = outer
        elif ORIGINAL in scaling and scaling[ORIGINAL] is None:
            raise source.error(f"{place}.{ORIGINAL}", "is null, which transformers does not take", fix="remove the key")
        scaling.setdefault(ORIGINAL, positions)
    check_scaling(source, place, scaling)
    return scaling
