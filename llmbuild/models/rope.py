"""RoPE as transformers reads it of a config.json, where a base, a share and a scaling have several places each."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from llmbuild.canonical import Json
from llmbuild.models.config_classes import ConfigClass
from llmbuild.models.frequencies import ORIGINAL, TYPES
from llmbuild.models.layer_types import FULL, SLIDING
from llmbuild.models.values import ConfigValues, shown


@dataclass(frozen=True, slots=True)
class _Keys:
    """The keys of a type of scaling: numbers that it needs, numbers that may be left out, lists of numbers, flags."""

    needed: tuple[str, ...]
    optional: tuple[str, ...] = ()
    lists: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()

    @property
    def all(self) -> tuple[str, ...]:
        return (*self.needed, *self.optional, *self.lists, *self.flags)


_KEYS: Mapping[str, _Keys] = {
    "linear": _Keys(("factor",)),
    "llama3": _Keys(("factor", "low_freq_factor", "high_freq_factor", ORIGINAL)),
    "yarn": _Keys(
        ("factor", ORIGINAL),
        ("attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim"),
        (),
        ("truncate",),
    ),
    "longrope": _Keys(("factor", ORIGINAL), ("attention_factor",), ("short_factor", "long_factor")),
    "dynamic": _Keys(("factor", ORIGINAL)),
    "ntk-alpha": _Keys(("alpha",)),
    "proportional": _Keys((), ("factor", "partial_rotary_factor")),
}
_ZERO_IS_ABSENT = frozenset({"beta_fast", "beta_slow", "mscale", "mscale_all_dim"})
_NULL_IS_ABSENT = _ZERO_IS_ABSENT | {"attention_factor"}
_OURS = frozenset({"ntk-alpha"})
"""Types that are a name of ours, and no rope_type of transformers."""


@dataclass(frozen=True, slots=True)
class Rope:
    """A configuration's RoPE: base, scaling (of one of `frequencies.TYPES`, or none) and the rotated share of a head."""

    theta: float
    scaling: Mapping[str, Json] | None
    partial: float


def resolve_rope(
    source: ConfigValues, like: ConfigClass, positions: int, given: tuple[str, Mapping[str, Json]] | None = None
) -> Rope:
    """`positions` is the resolved max_position_embeddings, the default of an original length.

    `given` is the object that counts, with its name, where that is none of the configuration's own.

    A value that another place overrides is named in a note.  Raises InputError for values that mean nothing, for values of
    which transformers knows no winner, and for the types of scaling that are not supported.
    """
    place, parameters = _parameters(source) if given is None else given
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
    kind = _kind(source, place, parameters, like)
    partial = _partial(source, place, parameters, like, kind)
    # A class may have an original length of its own.
    original = {key: value for key, value in like.defaults.items() if key == ORIGINAL}
    return Rope(
        theta, _scaling(source.but(original | dict(source.values)), place, parameters, kind, positions), partial
    )


def resolve_ropes_by_layer(source: ConfigValues, like: ConfigClass, positions: int) -> tuple[Rope, Rope]:
    """The RoPE of layers that see all, and that of layers with a window.

    `rope_parameters` has an object for each, and `rope_scaling` adds to the first.  Raises InputError as `resolve_rope` does,
    and for a scaling of the second.
    """
    kinds: dict[str, dict[str, Json]] = {FULL: {"rope_type": "default"}, SLIDING: {"rope_type": "default"}}
    for name, value in _object(source, "rope_parameters").items():
        if name not in kinds:
            raise source.error(
                f"rope_parameters.{name}",
                "is no type of layer",
                why=f"RoPE is by type of layer in a {source.model_type} model",
                fix=f"write the values into rope_parameters.{FULL} and rope_parameters.{SLIDING}",
            )
        if value is not None:
            kinds[name] = dict(_object(source.but({f"rope_parameters.{name}": value}), f"rope_parameters.{name}"))
    added = _object(source, "rope_scaling")
    place = "rope_scaling" if added else f"rope_parameters.{FULL}"
    everywhere = resolve_rope(source, like, positions, (place, kinds[FULL] | dict(added)))
    others = source.but({key: value for key, value in source.values.items() if key not in _BASES})
    second = replace(like, theta=like.local_theta or "", default_theta=like.default_local_theta)
    local = resolve_rope(others, second, positions, (f"rope_parameters.{SLIDING}", kinds[SLIDING]))
    if local.scaling is not None:
        raise source.error(
            f"rope_parameters.{SLIDING}.rope_type",
            f"RoPE scaling '{local.scaling['rope_type']}' of layers with a window is not supported",
            fix="choose another checkpoint",
        )
    return everywhere, local


def _object(source: ConfigValues, name: str) -> Mapping[str, Json]:
    value = source.values.get(name)
    if value is not None and not isinstance(value, Mapping):
        raise source.error(name, f"must be an object, not {shown(value)}")
    return value or {}


_BASES = frozenset({"rope_theta", "rotary_emb_base", "position_embedding_base"})


def check_scaling(source: ConfigValues, place: str, scaling: Mapping[str, Json]) -> None:
    """Raise InputError unless a scaling is of a type that is known, with usable numbers."""
    kind = scaling.get("rope_type")
    if not isinstance(kind, str) or kind not in TYPES:
        known = ", ".join(sorted(TYPES.keys() - _OURS))
        raise source.error(
            f"{place}.rope_type",
            f"RoPE scaling '{kind}' is not supported for {source.model_type}",
            why=f"the types default, {known} are",
        )
    _check_numbers(source, place, scaling, _KEYS[kind])
    if kind == "llama3" and scaling["low_freq_factor"] == scaling["high_freq_factor"]:
        raise source.error(f"{place}.high_freq_factor", "must differ from low_freq_factor")
    if kind == "proportional" and float(str(scaling.get("partial_rotary_factor") or 1)) > 1:
        raise source.error(f"{place}.partial_rotary_factor", "is more than the whole head")
    if not isinstance(scaling.get("truncate", True), bool):
        raise source.error(f"{place}.truncate", f"must be true or false, not {shown(scaling['truncate'])}")


def _check_numbers(source: ConfigValues, place: str, scaling: Mapping[str, Json], keys: _Keys) -> None:
    inner = source.but({f"{place}.{name}": value for name, value in scaling.items()})
    for name in keys.needed:
        (inner.integer if name == ORIGINAL else inner.number)(f"{place}.{name}")
    for name in keys.optional:
        value = scaling.get(name)
        absent = (
            name not in scaling
            or (value is None and name in _NULL_IS_ABSENT)
            or (value == 0 and name in _ZERO_IS_ABSENT)
        )
        if not absent:
            _number(source, f"{place}.{name}", value)
    for name in keys.lists:
        values = scaling.get(name)
        if not isinstance(values, list | tuple):
            raise source.error(f"{place}.{name}", f"must be a list of numbers, not {shown(values)}")
        for index, value in enumerate(values):
            _number(source, f"{place}.{name}[{index}]", value)


def _parameters(source: ConfigValues) -> tuple[str, Mapping[str, Json]]:
    """The object that counts, with its name: `rope_scaling` replaces `rope_parameters` whole."""
    found: dict[str, Mapping[str, Json]] = {}
    for name in ("rope_scaling", "rope_parameters"):
        value = source.values.get(name)
        if name == "rope_scaling" and not value:
            # What is false in Python counts as absent in transformers: `false`, `[]`, 0 and an empty text.
            continue
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
        source.note(f"config.json: {name} = {shown(other)} is not read, as {like.title} does not read it")


def _kind(source: ConfigValues, place: str, parameters: Mapping[str, Json], like: ConfigClass) -> str:
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
    if kind in _OURS:
        check_scaling(source, place, {"rope_type": None})
    if like.ntk_alpha and kind == "dynamic" and parameters.get("alpha"):
        return "ntk-alpha"
    if like.rope_types is None:
        return kind
    if kind not in like.rope_types:
        raise source.error(
            f"{place}.{name}",
            f"RoPE scaling '{kind}' is not supported for {source.model_type}",
            why=f"{like.title} takes {', '.join(like.rope_types)}",
            fix="choose another checkpoint",
        )
    lists = [key for key in ("short_factor", "long_factor") if parameters.get(key) is not None]
    if kind == "default" and lists:
        raise source.error(
            f"{place}.{lists[0]}",
            "is there, and the type of RoPE is default",
            why="only longrope has factors for each pair of elements",
            fix=f"remove it, or set {place}.rope_type to longrope",
        )
    return like.rope_types[kind]


def _partial(
    source: ConfigValues,
    place: str,
    parameters: Mapping[str, Json],
    like: ConfigClass,
    kind: str,
) -> float:
    inner = "partial_rotary_factor"
    if like.partial is not None:
        if kind == "proportional":
            raise source.error(
                f"{place}.rope_type", f"RoPE scaling 'proportional' is not supported for {source.model_type}"
            )
        share = _placed(source, place, parameters, inner, like.partial, like.default_partial)
        if like.partial != inner:
            _unread(source, inner, share, like)
        return share
    key = f"{place}.{inner}" if parameters.get(inner) is not None else inner
    value = parameters.get(inner, source.values.get(inner))
    if value is None or value == 1:
        return 1.0
    if kind == "proportional":
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
        if name not in ("rope_theta", "type", "rope_type")
        and (name != "partial_rotary_factor" or kind == "proportional")
    }
    if kind == "linear" and settings.get("factor") == 1:
        return None
    known = _KEYS[kind].all if kind in _KEYS else ()
    unread = {name: value for name, value in settings.items() if name not in known and value is not None}
    if unread and (known or kind == "default"):
        source.note(f"config.json: {shown(unread)} in {place} is not read, as its rope_type is {kind}")
    if kind == "default":
        return None
    if not known:
        check_scaling(source, place, {"rope_type": kind})
    scaling: dict[str, Json] = {"rope_type": kind}
    scaling |= {name: value for name, value in settings.items() if name in known}
    if kind == "dynamic":
        _say_loser(source, place, scaling, positions, "max_position_embeddings")
    elif ORIGINAL in known:
        _resolve_original(source, place, scaling, positions)
    if kind in ("yarn", "longrope") and scaling.get("factor") is None and (kind == "longrope" or "factor" in scaling):
        original = source.but({f"{place}.{ORIGINAL}": scaling[ORIGINAL]}).integer(f"{place}.{ORIGINAL}")
        scaling["factor"] = positions / original
    if kind == "proportional" and "partial_rotary_factor" in source.values:
        scaling.setdefault("partial_rotary_factor", source.values["partial_rotary_factor"])
    check_scaling(source, place, scaling)
    return scaling


def _resolve_original(source: ConfigValues, place: str, scaling: dict[str, Json], positions: int) -> None:
    """The original length: the one beside the object counts before the one in it."""
    if ORIGINAL in source.values:
        outer = source.values[ORIGINAL]
        if outer is None:
            raise source.error(ORIGINAL, "is null, which transformers cannot compute with", fix="remove the key")
        _say_loser(source, place, scaling, outer, ORIGINAL)
    elif ORIGINAL in scaling and scaling[ORIGINAL] is None:
        raise source.error(f"{place}.{ORIGINAL}", "is null, which transformers does not take", fix="remove the key")
    scaling.setdefault(ORIGINAL, positions)


def _say_loser(source: ConfigValues, place: str, scaling: dict[str, Json], value: Json, name: str) -> None:
    """Set the original length to a value from another place, noting the one that it takes the place of."""
    if scaling.setdefault(ORIGINAL, value) != value:
        source.note(
            f"config.json: {name} = {shown(value)} counts, and the {shown(scaling[ORIGINAL])} in {place} "
            "does not, as in transformers"
        )
    scaling[ORIGINAL] = value
