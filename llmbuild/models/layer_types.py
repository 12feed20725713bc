"""Which layers see a window, by the keys that say so: `layer_types`, and the older ones of Qwen and Mistral."""

from __future__ import annotations

from collections.abc import Mapping

from llmbuild.canonical import Json
from llmbuild.models.values import ConfigValues, shown

_FULL = ("full_attention", "attention")
_SLIDING = "sliding_attention"


def check_layer_types(source: ConfigValues, layers: int) -> None:
    """Raise InputError for `layer_types` that are no list of one name for each layer, which transformers does not load."""
    kinds = source.values.get("layer_types")
    if kinds is None:
        return
    if not isinstance(kinds, list | tuple) or not all(isinstance(kind, str) for kind in kinds):
        raise source.error("layer_types", f"must be a list of names, not {shown(kinds)}")
    if len(kinds) != layers:
        raise source.error("layer_types", f"has {len(kinds)} entries for {layers} layers")


def resolve_layer_types(source: ConfigValues, layers: int) -> Mapping[str, Json]:
    """`sliding_window`, as the one window of all layers or null; empty for a family that has no such key.

    Raises InputError where layers differ, which one KV cache cannot do, and for Qwen's windows.
    """
    if "layer_types" not in source.values or "sliding_window" not in source.values:
        return {}
    if "use_sliding_window" in source.values:
        _reject_windows(source, layers)
        return {"sliding_window": None}
    kinds, window = source.values["layer_types"], source.values["sliding_window"]
    if not isinstance(kinds, list | tuple) or (all(kind == _SLIDING for kind in kinds) and window is not None):
        return {"sliding_window": window}
    if any(kind not in _FULL for kind in kinds):
        raise source.error(
            "layer_types",
            f"layers of several kinds are not supported for {source.model_type}",
            why="transformers reads it as a ministral model, where each layer has its own window",
            fix="choose another checkpoint",
        )
    if window is not None:
        source.note(
            f"config.json: sliding_window = {shown(window)} does not count, as layer_types says full_attention for all "
            "layers, which transformers reads as a ministral model"
        )
    return {"sliding_window": None}


def _reject_windows(source: ConfigValues, layers: int) -> None:
    """A Qwen model slides a window over its upper layers only, or over those that `layer_types` names."""
    kinds = source.values["layer_types"]
    if isinstance(kinds, list | tuple):
        if any(kind not in _FULL for kind in kinds):
            raise source.error(
                "layer_types",
                f"layers other than full_attention are not supported for {source.model_type}",
                fix="choose another checkpoint",
            )
        return
    sliding = source.flag("use_sliding_window", default=False)
    if not sliding or source.values["sliding_window"] is None:
        return
    full = source.integer("max_window_layers", minimum=0)
    if full < layers:
        raise source.error(
            "use_sliding_window",
            f"a sliding window is not supported for {source.model_type}",
            why=f"layers {full} to {layers - 1} have one of {shown(source.values['sliding_window'])} tokens, "
            f"as max_window_layers is {full}",
            fix='choose another checkpoint, or set ignore-keys = ["use_sliding_window"] in the model\'s table and a '
            "context-window-size within the window",
        )
