"""A device kind as code generation uses it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmbuild.programs.parts import Parts

if TYPE_CHECKING:
    from llmbuild.compiler.kernels import KernelSet
    from llmbuild.models.kv_cache import KVCacheLayout


class Device(ABC):
    """The hooks of a device kind.  Those of a compiler serve code that TVM does not generate; by default it generates all."""

    name: str
    """The kind's name in logs."""

    sampling: Sequence[str] = ()
    """The functions of `llmbuild.compiler.passes.sampling` that its runtimes call; others sample on the host."""

    records_graphs = False
    """Whether its runtime can record the kernels of a step and launch them at once."""

    def identity(self, archs: Sequence[str]) -> str | None:  # noqa: ARG002
        """The name and version of the compiler that makes code for the architectures, determined without TVM."""
        return None

    def parts(self) -> Parts | None:
        """The compiler's files, found without running it."""
        return None

    def prepare(self, archs: Sequence[str]) -> AbstractContextManager[None]:  # noqa: ARG002
        """A context in which TVM calls the compiler."""
        return nullcontext()

    def require(self, archs: Sequence[str], objects: Path) -> None:  # noqa: B027
        """Raise ToolchainError unless the object file contains code for the architectures."""

    @abstractmethod
    def target(self, device: Mapping[str, Any], host: Mapping[str, Any]) -> Mapping[str, Any]:
        """The attributes of TVM's target."""

    def beside_any_host(self, target: Any) -> Any:
        """The target that kernels are made for: the same for all hosts beside which they are the same."""
        return target

    def operators(self) -> list[Any]:
        """The passes over operators, before they become TIR functions."""
        return []

    @abstractmethod
    def kernels(self) -> KernelSet:
        """Our kernels that a library uses."""

    @abstractmethod
    def schedules(self, target: Any, *, stock: bool = False) -> list[Any]:
        """The passes that schedule every PrimFunc that is not scheduled yet and bring indices to their final width.

        `stock` selects TVM's rules alone, for comparison.
        """

    def require_attention(self, layout: KVCacheLayout, target: Any) -> None:  # noqa: B027
        """Raise InputError where attention of this layout cannot be computed correctly."""
