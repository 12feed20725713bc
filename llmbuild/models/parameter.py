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
    stacked on axis 0 in this order.  `interleaved_heads` > 0 means that the (single) source has q, k and v head by head
    ([heads, 3, head_dim, …], as in GPT-NeoX) and must be regrouped into all q, all k, all v.  `dtype` overrides the scheme's
    compute dtype (GPT-NeoX keeps two biases in float32)."""

    name: str
    shape: tuple[int, ...]
    role: Role
    sources: tuple[str, ...]
    interleaved_heads: int = 0
    dtype: Literal["float32"] | None = None

    @property
    def axis(self) -> int:
        """The axis on which the sources are joined."""
        return 0

    @property
    def in_order(self) -> bool:
        """Whether the rows are those of the sources, one source after another."""
        return self.interleaved_heads == 0

    @property
    def source_dtypes(self) -> tuple[str, ...]:
        """The number types that the sources may have."""
        return ("float16", "bfloat16", "float32", "float64")

    def assemble(self, tensors: Sequence[np.ndarray]) -> np.ndarray:
        """The parameter's value [shape] from its sources' values, in the sources' dtype."""
        import numpy as np

        value = tensors[0] if len(tensors) == 1 else np.concatenate(tensors, axis=0)
        if self.interleaved_heads:
            heads = value.reshape(self.interleaved_heads, 3, -1, *value.shape[1:])
            value = np.ascontiguousarray(heads.swapaxes(0, 1)).reshape(value.shape)
        return value
