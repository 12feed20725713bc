"""A model's configuration as the tasks see it, and the values of it that a manifest may set.  Nothing here imports TVM."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from llmbuild.canonical import Json


@dataclass(frozen=True, slots=True)
class Overrides:
    """The metadata that a manifest may set; None leaves the checkpoint's or the family's default."""

    context_window_size: int | None = None
    sliding_window_size: int | None = None
    prefill_chunk_size: int | None = None
    attention_sink_size: int | None = None
    max_batch_size: int | None = None
    tensor_parallel_shards: int | None = None
    pipeline_parallel_stages: int | None = None
    disaggregation: bool | None = None


_ABSENT: Mapping[str, Any] = {
    "sliding_window_size": -1,
    "attention_sink_size": -1,
    "pipeline_parallel_stages": 1,
    "disaggregation": False,
}
"""What a configuration without such a field means."""


def absent(name: str) -> Any:
    """The meaning of a field that a configuration does not have; raises AttributeError where it has none."""
    try:
        return _ABSENT[name]
    except KeyError:
        raise AttributeError(f"the configuration has no field {name}") from None


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """A family's configuration, whose fields are attributes.  Sizes are in tokens; -1 means "does not apply".

    Fields named in `omitted` are ours: they are written only where they differ from the value there, so that a configuration
    that MLC can express stays exactly as MLC writes it.  Those in `nested` are written into an object `text_config`, and
    `spelling` has names that are written in the place of others.
    """

    fields: Mapping[str, Any]
    omitted: Mapping[str, Any] = field(default_factory=dict, repr=False)
    nested: frozenset[str] = field(default_factory=frozenset, repr=False)
    spelling: Mapping[str, str] = field(default_factory=dict, repr=False)

    def __getattr__(self, name: str) -> Any:
        if name in ("fields", "omitted", "nested", "spelling") or name.startswith("__"):
            raise AttributeError(name)
        return self.fields[name] if name in self.fields else absent(name)

    def to_json(self) -> dict[str, Json]:
        """The `model_config` object of mlc-chat-config.json: the architecture's own fields in MLC's order."""
        values = self.values()
        written = {
            self.spelling.get(name, name): values[name]
            for name, value in self.fields.items()
            if name not in self.omitted or value != self.omitted[name]
        }
        if not self.nested:
            return written
        text = {name: value for name, value in written.items() if name in self.nested}
        return {"text_config": text, **{name: value for name, value in written.items() if name not in self.nested}}

    def values(self) -> dict[str, Json]:
        """All fields as JSON in one object, which their rows read again."""
        return {
            name: dict(value) if isinstance(value, Mapping) else list(value) if isinstance(value, tuple) else value
            for name, value in self.fields.items()
        }


def flattened(model_config: Mapping[str, Json]) -> Mapping[str, Json]:
    """The values of a `model_config` in one object; MLC keeps those that it does not know in `kwargs` of `text_config`."""
    text = model_config.get("text_config")
    if not isinstance(text, Mapping):
        return model_config
    unknown = text.get("kwargs")
    return {**(unknown if isinstance(unknown, Mapping) else {}), **text, **model_config}
