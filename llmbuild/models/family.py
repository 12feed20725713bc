"""The contract of an architecture family, as the tasks see it.  Nothing here imports TVM.

A family turns a checkpoint's configuration (the content of config.json) into a `ModelConfig`, lists the parameters with
their origin in the checkpoint, and describes its decoder as data for `llmbuild.models.decoder` to build.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from llmbuild.canonical import Json
from llmbuild.models.parameter import Parameter


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


class ModelConfig(Protocol):
    """The fields of every family's configuration.  Sizes are in tokens; -1 means "does not apply"."""

    @property
    def vocab_size(self) -> int: ...
    @property
    def context_window_size(self) -> int: ...
    @property
    def sliding_window_size(self) -> int: ...
    @property
    def prefill_chunk_size(self) -> int: ...
    @property
    def attention_sink_size(self) -> int: ...
    @property
    def max_batch_size(self) -> int: ...
    @property
    def tensor_parallel_shards(self) -> int: ...

    def to_json(self) -> Mapping[str, Json]:
        """The `model_config` object of mlc-chat-config.json: the architecture's own fields in MLC's order."""
        ...


class Family(Protocol):
    """One architecture family."""

    @property
    def model_type(self) -> str:
        """MLC's name: "llama", "mistral", "gpt_neox", "qwen2", "qwen3"."""
        ...

    def configure(
        self,
        source: Mapping[str, Json],
        overrides: Overrides,
        *,
        ignore: Sequence[str] = (),
        note: Callable[[str], None] = ...,
    ) -> ModelConfig:
        """From config.json's content.  Raises InputError.

        The keys in `ignore` count as absent of a config.json.  Each value of one that does not count goes to `note`.
        """
        ...

    def restore(self, model_config: Mapping[str, Json], overrides: Overrides) -> ModelConfig:
        """From a `model_config` that `to_json` or MLC wrote.  Raises InputError."""
        ...

    def parameters(self, config: ModelConfig) -> tuple[Parameter, ...]:
        """Every parameter, in the order of the module's own declaration."""
        ...

    def unused(self, name: str) -> bool:
        """Whether a checkpoint tensor of this name is known and rightly ignored (rotary_emb.inv_freq and the like)."""
        ...
