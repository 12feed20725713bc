"""MLC's rolling cache: one window for all layers, which keeps the first tokens ("sinks") and rolls on without an end."""

from __future__ import annotations

from llmbuild.models.rows import CONTEXT, Reading, Row


def _sliding(c: Reading) -> int:
    """The window, or -1 where there is none, and where a context within it never slides."""
    source = c.source
    name, value = source.get("sliding_window_size", "sliding_window")
    if value == 0 and name == "sliding_window_size":
        name, value = source.get("sliding_window")
    if name == "sliding_window" and type(value) is int and value <= 0:
        raise source.error(
            name,
            f"is {value}",
            why="transformers takes it as a window of that many tokens, in which no token is seen",
            fix="correct config.json: null stands for no window",
        )
    sliding = -1 if value in (None, -1) else source.integer(name)
    if sliding != -1 and c.attention_sink_size >= sliding:
        raise source.error(
            "attention_sink_size",
            f"is {c.attention_sink_size}, which does not fit into the sliding window of {sliding}",
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


SLIDING_WINDOW = Row("sliding_window_size", _sliding)
ROLLING_CONTEXT = Row("context_window_size", lambda c: -1 if c.sliding_window_size != -1 else CONTEXT.read(c))
"""WebLLM takes one window and not both: the other is -1."""

SINKS = Row("attention_sink_size", lambda c: c.source.integer("attention_sink_size", default=4, minimum=0))
