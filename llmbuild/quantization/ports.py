"""What quantizing needs of a checkpoint and of a model's parameters, without knowing either."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

from llmbuild.quantization.scheme import ComputeDtype

if TYPE_CHECKING:
    import numpy as np

    from llmbuild.quantization.calibrated import Factor

StoredDtype: TypeAlias = ComputeDtype | Literal["uint32"]
"""Numbers that are packed in the checkpoint already are stored unchanged."""


class TensorHeader(Protocol):
    """The properties of a tensor before it is read."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> str: ...
    @property
    def nbytes(self) -> int: ...


class TensorSource(Protocol):
    """Named tensors in record order: a checkpoint, or a view of one with an adapter merged."""

    @property
    def tensors(self) -> Mapping[str, TensorHeader]: ...
    def read(self, name: str) -> np.ndarray[Any, Any]: ...
    def parts(self, name: str) -> Iterator[np.ndarray[Any, Any]]:
        """The elements of a tensor in order, some at a time."""
        ...

    def location(self, name: str) -> str | None:
        """Where a tensor lies, for messages; None when there is no file to name."""
        ...


class KnownInputs(Protocol):
    """What is known of the inputs that a model's weights are multiplied with."""

    def factor(self, parameter: PlainParameter, /) -> Factor | None:
        """None where nothing is known of those of this parameter."""
        ...


class PlainParameter(Protocol):
    """A parameter before quantization, as `llmbuild.models.parameter` describes it."""

    @property
    def name(self) -> str: ...
    @property
    def modules(self) -> tuple[str, ...]:
        """The names by which a scheme's overrides call it."""
        ...

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def role(self) -> str: ...
    @property
    def sources(self) -> tuple[str, ...]: ...
    @property
    def dtype(self) -> StoredDtype | None: ...
    @property
    def axis(self) -> int: ...
    @property
    def stored_shape(self) -> tuple[int, ...]: ...
    @property
    def in_order(self) -> bool: ...
    @property
    def source_dtypes(self) -> tuple[str, ...]: ...
    def assemble(self, tensors: Sequence[np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]: ...
