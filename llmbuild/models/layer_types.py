"""Which layers see a window, by the keys that say so: `layer_types`, and the rule of a class where that is absent."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from llmbuild.canonical import Json
from llmbuild.models.values import ConfigValues, shown

FULL = "full_attention"
SLIDING = "sliding_attention"
_FULL_TOO = (FULL, "attention")

LayerRule = Callable[[ConfigValues, int], Sequence[str]]
"""The kinds of a number of layers in a model with a window, where `layer_types` is absent."""


def every_layer(_: ConfigValues, layers: int) -> Sequence[str]:
    """All layers have the window."""
    return [SLIDING] * layers


def upper_layers(source: ConfigValues, layers: int) -> Sequence[str]:
    """Those from `max_window_layers` on have it (Qwen)."""
    full = source.integer("max_window_layers", minimum=0)
    return [FULL if layer < full else SLIDING for layer in range(layers)]


def all_but_each(count: int, key: str | None = None) -> LayerRule:
    """All but each `count`-th have it (Gemma 2: 2); `key` is the name under which a configuration may say another number."""

    def rule(source: ConfigValues, layers: int) -> Sequence[str]:
        each = count if key is None else source.integer(key, default=None if key in source.values else count)
        return [SLIDING if (layer + 1) % each else FULL for layer in range(layers)]

    return rule


def all_but_first_of(count: int) -> LayerRule:
    """All have it but the first of each `count` (CWM: 4)."""

    def rule(_: ConfigValues, layers: int) -> Sequence[str]:
        return [SLIDING if layer % count else FULL for layer in range(layers)]

    return rule


def check_layer_types(source: ConfigValues, layers: int) -> None:
    """Raise InputError for `layer_types` that are no list of one name for each layer, which transformers does not load."""
    kinds = source.values.get("layer_types")
    if kinds is None:
        return
    if not isinstance(kinds, list | tuple) or not all(isinstance(kind, str) for kind in kinds):
        raise source.error("layer_types", f"must be a list of names, not {shown(kinds)}")
    if len(kinds) != layers:
        raise source.error("layer_types", f"has {len(kinds)} entries for {layers} layers")


def kinds_of(source: ConfigValues, rule: LayerRule, layers: int) -> Sequence[Json]:
    """The kinds of layers, by `layer_types` or else the rule."""
    given = source.values.get("layer_types")
    return given if isinstance(given, list | tuple) else rule(source, layers)


def resolve_local_layers(
    source: ConfigValues, rule: LayerRule, layers: int, without_window: bool | None
) -> Sequence[bool]:
    """For each layer whether it is of the kind that has a window, by what a class says of one where there is no window."""
    if without_window is not None and source.values["sliding_window"] is None:
        return [without_window] * layers
    return [kind == SLIDING for kind in kinds_of(source, rule, layers)]


def resolve_layer_types(source: ConfigValues, rule: LayerRule, layers: int) -> Mapping[str, Json]:
    """`sliding_window` and `layer_types` as they count: null for no window, and null for all layers alike.

    Empty for a family without such keys.  Raises InputError for kinds of layers that are not known, and for a window of no
    tokens.
    """
    if "sliding_window" not in source.values:
        return {}
    none: Mapping[str, Json] = {"sliding_window": None, "layer_types": None}
    window, given = source.values["sliding_window"], source.values.get("layer_types")
    if "use_sliding_window" in source.values and not source.flag("use_sliding_window", default=False):
        window = None
    if isinstance(given, list | tuple):
        _check_kinds(source, given, window)
        if window is not None and SLIDING not in given and "use_sliding_window" not in source.values:
            source.note(
                f"config.json: sliding_window = {shown(window)} does not count, as layer_types says {FULL} for all layers"
            )
            return none
    if window is None:
        return none
    if type(window) is int and window <= 0:
        raise source.error(
            "sliding_window",
            f"is {window}",
            why="transformers takes it as a window of that many tokens, in which no token is seen",
            fix="correct config.json: null stands for no window",
        )
    kinds = kinds_of(source, rule, layers)
    if SLIDING not in kinds:
        return none
    alike = all(kind == SLIDING for kind in kinds)
    return {"sliding_window": source.integer("sliding_window"), "layer_types": None if alike else list(kinds)}


def _check_kinds(source: ConfigValues, kinds: Sequence[Json], window: Json) -> None:
    for kind in kinds:
        if kind not in (*_FULL_TOO, SLIDING):
            raise source.error(
                "layer_types",
                f"layers of kind {shown(kind)} are not supported for {source.model_type}",
                fix="choose another checkpoint",
            )
    if window is None and SLIDING in kinds:
        raise source.error(
            "layer_types",
            f"says {SLIDING}, but there is no sliding_window",
            why="transformers makes no mask of it",
            fix="correct config.json",
        )
