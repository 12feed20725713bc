"""A parameter of a model before quantization: its name, shape, role, and how it is made from the checkpoint's tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np

Role = Literal["embedding", "linear", "head", "plain"]
"""The criterion of a scheme: `plain` parameters (norms, biases) are never quantized."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """`name` is the target module's ("model.layers.0.self_attn.qkv_proj.weight"); `sources` are the checkpoint's names,
    stacked on axis 0 in this order.  `grouping` (g, n, m, l) means that the (single) source has g groups of n queries, m keys
    and l values of one head each, and must be regrouped into all queries, all keys, all values.  With `transposed` the source
    has inputs in rows.  `offset` is added to the value, and with `unit_rows` each row is divided by its length.  `dtype`
    overrides the scheme's compute dtype (GPT-NeoX keeps two biases in float32).  `also` is the module that a tied embedding is
    besides its own: the head."""

    name: str
    shape: tuple[int, ...]
    role: Role
    sources: tuple[str, ...]
    grouping: tuple[int, int, int, int] | None = None
    transposed: bool = False
    offset: float = 0.0
    unit_rows: bool = False
    dtype: Literal["float32"] | None = None
    also: str | None = None

    @property
    def modules(self) -> tuple[str, ...]:
        """The names by which a scheme's overrides call it."""
        own = self.name.removesuffix(".weight")
        return (own,) if self.also is None else (own, self.also)

    @property
    def axis(self) -> int:
        """The axis on which the sources are joined."""
        return 0

    @property
    def in_order(self) -> bool:
        """Whether the rows are those of the sources, one source after another."""
        return self.grouping is None and not self.transposed and not self.offset and not self.unit_rows

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """The shape of the joined sources."""
        return self.shape[::-1] if self.transposed else self.shape

    @property
    def source_dtypes(self) -> tuple[str, ...]:
        """The number types that the sources may have."""
        return ("float16", "bfloat16", "float32", "float64")

    def assemble(self, tensors: Sequence[np.ndarray]) -> np.ndarray:
        """The parameter's value [shape] from its sources' values, in the sources' dtype; in float32 where it is computed."""
        import numpy as np

        value = tensors[0] if len(tensors) == 1 else np.concatenate(tensors, axis=0)
        if self.transposed:
            value = np.ascontiguousarray(value.T)
        if self.grouping is not None:
            groups, *counts = self.grouping
            heads = value.reshape(groups, sum(counts), -1, *value.shape[1:])
            parts = np.split(heads, np.cumsum(counts)[:-1], axis=1)
            value = np.concatenate([part.reshape(-1, *value.shape[1:]) for part in parts])
        if self.unit_rows:
            value = value.astype(np.float32)
            value /= np.maximum(np.sqrt(np.einsum("ij,ij->i", value, value)), np.float32(1e-12))[:, None]
        return value.astype(np.float32) + np.float32(self.offset) if self.offset else value

    def take_apart(self, value: np.ndarray, rows: Sequence[int]) -> list[np.ndarray]:
        """The sources' values from the parameter's in float32, as `assemble` takes them; `rows` are those of each source.

        Rows that were divided by their lengths stay so.
        """
        import numpy as np

        if self.offset:
            value = value - np.float32(self.offset)
        if self.grouping is not None:
            groups, *counts = self.grouping
            size = len(value) // (groups * sum(counts))
            ends = np.cumsum([groups * count * size for count in counts])[:-1]
            parts = [part.reshape(groups, -1, *value.shape[1:]) for part in np.split(value, ends)]
            value = np.concatenate(parts, axis=1).reshape(value.shape)
        if self.transposed:
            value = value.T
        return [np.ascontiguousarray(part) for part in np.split(value, np.cumsum(rows)[:-1])]
