"""The fields of a family's configuration as rows: a name in `model_config`, and how its value is read and checked.

One row reads a checkpoint's config.json, which `config_json` has made explicit, and the `model_config` object of
mlc-chat-config.json; where both spell a value, `model_config`'s spelling is named first and wins, and its 0 means "not set".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from llmbuild.models.family import ModelConfig, absent
from llmbuild.models.scaling import read_scaling
from llmbuild.models.values import LARGEST, ConfigValues

LARGEST_LAYERS = 4096
DEFAULT_CHUNK = 8192
DEFAULT_BATCH = 128
_UNSET: Any = object()


class Reading:
    """A configuration that is being read: the value of a row is read when it is first asked for, as an attribute."""

    def __init__(self, source: ConfigValues, rows: Sequence[Row]) -> None:
        self.source = source
        self._rows = {row.name: row for row in rows}
        self._found: dict[str, Any] = {}

    def has(self, name: str) -> bool:
        """Whether there is a row of this name."""
        return name in self._rows

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if name not in self._rows:
            return absent(name)
        if name not in self._found:
            self._found[name] = self._rows[name].read(self)
        return self._found[name]


@dataclass(frozen=True, slots=True)
class Row:
    """`read` gives the value, from the source and from other rows.

    A row with `omitted`, a value or a function that gives one of other rows, is one that MLC lacks: it is written only where its
    value is another.  A `nested` one is written into `text_config`.
    """

    name: str
    read: Callable[[Reading], Any]
    omitted: Any = _UNSET
    nested: bool = False

    def extra(self, omitted: Any) -> Row:
        """This row as one that MLC lacks."""
        return replace(self, omitted=omitted)


def read_rows(source: ConfigValues, rows: Sequence[Row]) -> ModelConfig:
    """The configuration; raises InputError naming the key of a value that is missing or senseless."""
    reading = Reading(source, rows)
    found = {row.name: getattr(reading, row.name) for row in rows}
    omitted = {
        row.name: row.omitted(reading) if callable(row.omitted) else row.omitted
        for row in rows
        if row.omitted is not _UNSET
    }
    nested = frozenset(row.name for row in rows if row.nested)
    return ModelConfig(found, omitted, nested, source.spelling)


def in_text_config(rows: Sequence[Row]) -> tuple[Row, ...]:
    """Rows that MLC has in an object of their own."""
    return tuple(replace(row, nested=True) for row in rows)


def but(rows: Sequence[Row], *others: Row) -> tuple[Row, ...]:
    """Rows with others in the places of those of the same names."""
    named = {row.name: row for row in others}
    return tuple(named.get(row.name, row) for row in rows)


def integer(name: str, *others: str, default: int | None = None, minimum: int = 1, maximum: int = LARGEST) -> Row:
    """See `ConfigValues.integer`; `others` are names of the same value."""
    return Row(name, lambda c: c.source.integer(name, *others, default=default, minimum=minimum, maximum=maximum))


def number(name: str, *others: str, default: float | None = None) -> Row:
    """A finite number above 0."""
    return Row(name, lambda c: c.source.number(name, *others, default=default))


def only(name: str, value: bool) -> Row:
    """A flag of which one value is supported, and is the default."""

    def read(c: Reading) -> bool:
        if c.source.flag(name, default=value) != value:
            raise c.source.error(
                name,
                f"is {str(not value).lower()}, which is not supported for {c.source.model_type}",
                why="no published checkpoint has it",
                fix="choose another checkpoint",
            )
        return value

    return Row(name, read)


def optional_number(name: str) -> Row:
    """A finite number above 0, or None."""
    return Row(name, lambda c: None if c.source.values.get(name) is None else c.source.number(name))


def flag(name: str, default: bool) -> Row:
    """True or false."""
    return Row(name, lambda c: c.source.flag(name, default=default))


def kept(name: str, default: Any) -> Row:
    """A value that MLC writes and that no model is computed with."""
    return Row(name, lambda c: c.source.values.get(name, default))


def token_ids(**defaults: int) -> tuple[Row, ...]:
    """Special tokens, each with its default, which MLC writes beside what a conversation says."""
    return tuple(kept(f"{name}_token_id", default) for name, default in defaults.items())


def constant(name: str, value: Any) -> Row:
    """A field that MLC writes and that does not depend on the checkpoint."""
    return Row(name, lambda _: value)


def choice(name: str, only: str) -> Row:
    """A text of which one value is supported."""

    def read(c: Reading) -> str:
        if c.source.text(name, default=only) != only:
            raise c.source.error(name, f"must be {only}")
        return only

    return Row(name, read)


def activation(default: str = "silu", name: str = "hidden_act") -> Row:
    """The name of a supported activation function, as it is spelled."""
    return Row(name, lambda c: c.source.activation(name, default=default))


def head_dim(default: int | None = None) -> Row:
    """The head size, which is even; `default` None: the hidden size divided by the heads."""

    def read(c: Reading) -> int:
        hidden, heads = c.hidden_size, c.num_attention_heads
        size: int = c.source.integer("head_dim", default=default or max(hidden // heads, 1))
        if c.source.get("head_dim")[1] in (None, 0) and default is None and hidden % heads:
            raise c.source.error("hidden_size", f"is {hidden}, which {heads} attention heads do not divide")
        if size % 2:
            raise c.source.error("head_dim", f"is {size}, but rotary embedding needs an even head size")
        return size

    return Row("head_dim", read)


def whole_head_dim() -> Row:
    """The head size of heads that together have the hidden size."""

    def read(c: Reading) -> int:
        heads: int = c.num_attention_heads
        size: int = HEAD_DIM.read(c)
        if heads * size != c.hidden_size:
            raise c.source.error(
                "num_attention_heads", f"{heads} heads of {size} do not make the hidden size {c.hidden_size}"
            )
        return size

    return Row("head_dim", read)


def rotary_share(default: float, name: str = "partial_rotary_factor") -> Row:
    """The share of a head that RoPE turns, which is an even number of elements."""

    def read(c: Reading) -> float:
        share: float = c.source.number(name, default=default)
        if share > 1 or int(c.head_dim * share) % 2 or int(c.head_dim * share) == 0:
            raise c.source.error(name, f"is {share}, which does not make an even part of the head size {c.head_dim}")
        return share

    return Row(name, read)


def rotary_dim(default: int) -> Row:
    """The elements of a head that RoPE turns, an even number."""

    def read(c: Reading) -> int:
        size: int = c.source.integer("rotary_dim", default=default)
        if size % 2 or size > c.head_dim:
            raise c.source.error("rotary_dim", f"is {size}, which is no even part of the head size {c.head_dim}")
        return size

    return Row("rotary_dim", read)


def rotated(c: Reading | ModelConfig) -> int:
    """The rotated elements of a head by a `partial_rotary_factor`."""
    return int(c.head_dim * c.partial_rotary_factor)


def chunk(largest: int = DEFAULT_CHUNK) -> Row:
    """MLC's rule: unset, or larger than the window, becomes min(window, largest)."""

    def read(c: Reading) -> int:
        window = min(size for size in (c.sliding_window_size, c.context_window_size) if size != -1)
        size: int = c.source.integer("prefill_chunk_size", default=min(window, largest))
        return size if size <= window else min(window, largest)

    return Row("prefill_chunk_size", read)


def kv_heads(name: str = "num_key_value_heads", default: int | None = None) -> Row:
    """The number of key-value heads, which divides that of attention heads; `default` None: as many."""

    def read(c: Reading) -> int:
        heads = c.num_attention_heads
        found: int = c.source.integer(name, default=default or heads)
        if heads % found:
            raise c.source.error(name, f"is {found}, which does not divide the {heads} attention heads")
        return found

    return Row(name, read)


def _shards(c: Reading) -> int:
    """They must divide what is split: query heads, key-value heads, the MLP's inner size."""
    shards: int = c.source.integer("tensor_parallel_shards", default=1)
    split = {
        "attention heads": c.num_attention_heads,
        "key-value heads": c.num_key_value_heads if c.has("num_key_value_heads") else c.num_attention_heads,
        "inner MLP features": c.intermediate_size,
    }
    for what, size in split.items():
        if size % shards:
            raise c.source.error("tensor_parallel_shards", f"is {shards}, which does not divide the {size} {what}")
    return shards


def _inner_size(c: Reading) -> int:
    size: int = c.source.integer("intermediate_size", default=4 * c.hidden_size)
    return size


def _positions(c: Reading) -> int:
    size: int = c.source.integer("max_position_embeddings", default=CONTEXT.read(c))
    return size


def _positioned_context(c: Reading) -> int:
    context: int = CONTEXT.read(c)
    if context > c.max_position_embeddings:
        raise c.source.error(
            "context_window_size",
            f"is {context}, and the model has {c.max_position_embeddings} positions",
            why="each position has an embedding of its own, which was learned, and there is none for a later token",
            fix=f"set context-window-size to {c.max_position_embeddings} or less",
        )
    return context


def rope_scaling(rotary_dim: Callable[[Reading], int] = lambda c: c.head_dim) -> Row:
    """The scaling of RoPE, or None, for a number of rotated elements of a head."""

    def read(c: Reading) -> Mapping[str, Any] | None:
        rolling = c.sliding_window_size != -1
        return read_scaling(c.source, _theta(c), rotary_dim(c), c.context_window_size, rolling=rolling)

    return Row("rope_scaling", read)


def _untied(c: Reading) -> bool:
    if c.source.flag("tie_word_embeddings", default=False):
        raise c.source.error(
            "tie_word_embeddings",
            f"is true, which is not supported for {c.source.model_type}",
            why="the head has a bias",
            fix="choose another checkpoint",
        )
    return False


def _theta(c: Reading) -> float:
    return c.source.number("position_embedding_base", "rope_theta", default=10000)


VOCAB_SIZE = integer("vocab_size")
HIDDEN_SIZE = integer("hidden_size")
INTERMEDIATE_SIZE = integer("intermediate_size")
HEADS = integer("num_attention_heads")
KV_HEADS = kv_heads()
HEAD_DIM = head_dim()
WHOLE_HEAD_DIM = whole_head_dim()
LAYERS = integer("num_hidden_layers", maximum=LARGEST_LAYERS)
RMS_NORM_EPS = number("rms_norm_eps")
TIED = flag("tie_word_embeddings", False)
UNTIED = Row("tie_word_embeddings", _untied)
POSITION_EMBEDDING_BASE = Row("position_embedding_base", _theta)
ROPE_THETA = Row("rope_theta", _theta)
ROPE_SCALING = rope_scaling()
PARTIAL_ROPE_SCALING = rope_scaling(rotated)
CONTEXT = integer("context_window_size", "max_position_embeddings")
POSITIONS = Row("max_position_embeddings", _positions)
POSITIONED_CONTEXT = Row("context_window_size", _positioned_context)
INNER_SIZE = Row("intermediate_size", _inner_size)
CHUNK = chunk()
BATCH = integer("max_batch_size", default=DEFAULT_BATCH)
SHARDS = Row("tensor_parallel_shards", _shards)
STAGES = Row(
    "pipeline_parallel_stages",
    lambda c: c.source.integer("pipeline_parallel_stages", default=1, maximum=c.num_hidden_layers),
)
DISAGGREGATION = flag("disaggregation", False)
_STANDARD = {
    row.name: row
    for row in (
        VOCAB_SIZE,
        HIDDEN_SIZE,
        INTERMEDIATE_SIZE,
        HEADS,
        KV_HEADS,
        HEAD_DIM,
        LAYERS,
        RMS_NORM_EPS,
        TIED,
        POSITION_EMBEDDING_BASE,
        ROPE_THETA,
        ROPE_SCALING,
        CONTEXT,
        CHUNK,
        BATCH,
        SHARDS,
        STAGES,
        DISAGGREGATION,
    )
}


def standard(names: str) -> tuple[Row, ...]:
    """Rows that many families have and that say no more than their names, which are separated by blanks."""
    return tuple(_STANDARD[name] for name in names.split())


LLAMA_LIKE = standard(
    "hidden_size intermediate_size num_attention_heads num_hidden_layers vocab_size tie_word_embeddings "
    "position_embedding_base rope_scaling context_window_size prefill_chunk_size num_key_value_heads head_dim "
    "tensor_parallel_shards max_batch_size"
)
"""The fields of a family that MLC lacks and that has Llama's sizes, without its norm, biases and activation."""
