"""Windows of attention as rows: those of a checkpoint's layers, which are exact, and MLC's rolling cache on request.

A layer's window is a mask over the whole context.  The rolling cache has one window for all layers, keeps the first tokens
("sinks") besides, and rolls on without an end; `sliding-window-size` of a manifest asks for it, and a `model_config` that MLC
wrote has it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from llmbuild.canonical import Json
from llmbuild.models.family import ModelConfig, Overrides
from llmbuild.models.layer_types import SLIDING, LayerRule, check_layer_types
from llmbuild.models.rows import CONTEXT, Reading, Row, but
from llmbuild.models.values import ConfigValues

LONGEST_DEFAULT = 8192
"""The context window of a model with windows where nobody sets one."""


def _rolling(c: Reading) -> int:
    """The rolling cache's window, or -1 where there is none, and where a context within it never slides."""
    source = c.source
    value = source.values.get("sliding_window_size")
    sliding = -1 if value in (None, 0, -1) else source.integer("sliding_window_size")
    if sliding != -1:
        sinks = source.integer("attention_sink_size", default=4, minimum=0)
        if sinks >= sliding:
            raise source.error(
                "attention_sink_size", f"is {sinks}, which does not fit into the sliding window of {sliding}"
            )
    set_context = source.values.get("context_window_size")
    if set_context == -1 and sliding == -1:
        raise source.error("context_window_size", "is -1, but the model has no sliding window either")
    if sliding == -1 or set_context in (None, 0, -1):
        return sliding
    context = CONTEXT.read(c)
    if context <= sliding:
        return -1
    source.note(
        f"a context window of {context} tokens is not kept, as the sliding window of {sliding} rolls on without an end; "
        f"set sliding-window-size = -1, or a context-window-size of at most {sliding}"
    )
    return sliding


def _sinks(c: Reading) -> int:
    value = c.source.values.get("attention_sink_size")
    if c.sliding_window is None or c.sliding_window_size != -1:
        return c.source.integer("attention_sink_size", default=4, minimum=0)
    if value not in (None, -1):
        raise c.source.error(
            "attention_sink_size",
            f"is {value}, and only a rolling cache keeps first tokens",
            why="the windows of the checkpoint's layers are those of transformers, without such tokens",
            fix="remove it, or set sliding-window-size for MLC's rolling cache",
        )
    return -1


def _window(c: Reading) -> int | None:
    value = c.source.values.get("sliding_window")
    return None if value is None else c.source.integer("sliding_window")


def _kinds(c: Reading) -> tuple[str, ...] | None:
    check_layer_types(c.source, c.num_hidden_layers)
    kinds = c.source.values.get("layer_types")
    return tuple(str(kind) for kind in kinds) if isinstance(kinds, list | tuple) else None


def layer_types(rule: LayerRule) -> Row:
    """The kinds of layers of a family whose layers differ, which is so in a `model_config` of MLC that does not say it."""

    def read(c: Reading) -> tuple[str, ...] | None:
        if "layer_types" in c.source.values or c.sliding_window is None:
            return _kinds(c)
        return tuple(rule(c.source, c.num_hidden_layers))

    return Row("layer_types", read)


def local_layers(rule: LayerRule) -> Row:
    """The layers of the kind that has a window: they keep their RoPE where a manifest takes the window away.

    A `model_config` of MLC does not say them.
    """

    def read(c: Reading) -> tuple[bool, ...]:
        layers = c.num_hidden_layers

        def by_kind() -> list[bool]:
            return [kind == SLIDING for kind in c.layer_types or rule(c.source, layers)]

        flags: tuple[bool, ...] = c.source.flags("local_layers", layers, by_kind)
        return flags

    return Row("local_layers", read)


def _context(c: Reading) -> int:
    """WebLLM takes one window and not both: with a rolling cache the context is -1."""
    if c.sliding_window_size != -1:
        return -1
    context: int = CONTEXT.read(c)
    is_set = c.source.values.get("context_window_size") not in (None, 0)
    return context if is_set or c.sliding_window is None else min(context, max(LONGEST_DEFAULT, c.sliding_window))


WINDOW = Row("sliding_window", _window).extra(None)
LAYER_TYPES = Row("layer_types", _kinds).extra(None)
WINDOWED_CONTEXT = Row("context_window_size", _context)
SLIDING_WINDOW_SIZE = Row("sliding_window_size", _rolling)
SINKS = Row("attention_sink_size", _sinks)


def windowed(rows: Sequence[Row]) -> tuple[Row, ...]:
    """Rows of a family whose layers may have windows, of those of one without."""
    return (*but(rows, WINDOWED_CONTEXT), WINDOW, LAYER_TYPES)


def windows_of(c: ModelConfig) -> tuple[int | None, ...]:
    """The window of each layer, None where it sees all; a window that the context never fills is none."""
    layers: int = c.num_hidden_layers
    window: int | None = c.fields.get("sliding_window")
    if window is None or c.sliding_window_size != -1 or c.context_window_size <= window:
        return (None,) * layers
    kinds: tuple[str, ...] = c.fields.get("layer_types") or (SLIDING,) * layers
    return tuple(window if kind == SLIDING else None for kind in kinds)


def window_changes(config: ModelConfig, values: ConfigValues, overrides: Overrides) -> Mapping[str, Json]:
    """What `sliding-window-size` changes in a configuration whose layers have windows: they have none then.

    Raises InputError where a rolling cache would take the place of windows that only some layers have.
    """
    size = overrides.sliding_window_size
    if size is None or config.fields.get("sliding_window") is None:
        return {}
    if size != -1 and config.layer_types is not None:
        raise values.error(
            "layer_types",
            "gives some layers a window and others none, and a rolling cache has one for all",
            fix="remove sliding-window-size for the checkpoint's own windows, or set it to -1 for none",
        )
    context = -1 if size != -1 else values.get("max_position_embeddings")[1] or config.context_window_size
    none = dict.fromkeys(("sliding_window", "layer_types", "attention_sink_size"))
    return {**none, "context_window_size": context}
