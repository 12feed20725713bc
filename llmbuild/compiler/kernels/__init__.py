"""Kernels of ours: a package for CPUs and one for GPUs, each with a `kernel_set` of those that a library uses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from llmbuild.models.kv_cache import KVCacheLayout
    from llmbuild.quantization.layers import Kernels


class LogitProcessors(Protocol):
    """Functions that alter logits in place, as `llmbuild.compiler.passes.logits` names them."""

    def logit_bias_kernel(self) -> Any: ...

    def penalty_kernel(self) -> Any: ...

    def bitmask_kernel(self) -> Any: ...


class RowMoves(Protocol):
    """Functions on rows of a number type: target[rows[i], :] = source[i, :], and target[i, :] = source[rows[i], :]."""

    def scatter_kernel(self, dtype: str, /) -> Any: ...

    def gather_kernel(self, dtype: str, /) -> Any: ...


class Softmax(Protocol):
    """The softmax with temperature, of which only the first `active` tokens have a probability."""

    def softmax(
        self, builder: Any, logits: Any, temperature: Any, active: int | None, one: Callable[..., Any], /
    ) -> Any:
        """The expression that calls its kernels, which it adds to the module of the builder; `one` gives the kernel that a
        function makes of arguments."""
        ...


@dataclass(frozen=True, slots=True)
class KernelSet:
    """The kernels of one sort of device."""

    linear: Callable[[Any, str | None, Callable[..., Any]], Kernels]
    """How linear layers multiply on a target of TVM, with how a platform wants activations rounded and with what gives the kernel
    that a function makes of arguments; a new one for each build."""
    attention: Callable[[KVCacheLayout], Mapping[str, Any]]
    """Kernels for the KV cache by the names that TVM's own have in a module."""
    softmax: Softmax
    logits: LogitProcessors
    row_moves: RowMoves
