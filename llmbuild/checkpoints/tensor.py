"""The interface of every checkpoint: named tensors with known shapes, read one at a time."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

if TYPE_CHECKING:
    import numpy as np

ITEM_SIZES: Mapping[str, int] = {
    "bool": 1,
    "uint8": 1,
    "int8": 1,
    "float8_e4m3fn": 1,
    "float8_e4m3fnuz": 1,
    "float8_e5m2": 1,
    "float8_e5m2fnuz": 1,
    "float8_e8m0fnu": 1,
    "uint16": 2,
    "int16": 2,
    "float16": 2,
    "bfloat16": 2,
    "uint32": 4,
    "int32": 4,
    "float32": 4,
    "uint64": 8,
    "int64": 8,
    "float64": 8,
    "complex64": 8,
    "complex128": 16,
}
"""Every dtype that a tensor which can be read may have, with the bytes of one element."""

PART_ELEMENTS = 1 << 21
"""Elements of a tensor that are read at a time where not all are needed at once."""

MAX_DIMENSIONS = 32
MAX_BYTES = 1 << 62


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A tensor as `read` returns it: `dtype` is a name of `ITEM_SIZES`, `nbytes` the size of the array in memory.

    A tensor of another dtype is known by name and shape, and cannot be read.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    nbytes: int

    @staticmethod
    def of(name: str, shape: tuple[int, ...], dtype: str) -> TensorInfo:
        return TensorInfo(name, shape, dtype, math.prod(shape) * ITEM_SIZES[dtype])


class TensorFile(Protocol):
    """One opened weight file."""

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """The file's tensors in the order in which it names them."""
        ...

    def read(self, name: str) -> np.ndarray:
        """One tensor, as a fresh array that is not shared.  Raises InputError when the file cannot be read."""
        ...

    def parts(self, name: str) -> Iterator[np.ndarray]:
        """See `Checkpoint.parts`."""
        ...

    def close(self) -> None: ...


class Checkpoint(ABC):
    """A checkpoint in Hugging Face's shape, whatever its file format.  Use it as a context manager, or close it."""

    format: str
    """ "huggingface-safetensor", "huggingface-torch" or "gguf"."""
    config: dict[str, Any]
    """The content of config.json, or a GGUF file's metadata in the spelling of config.json."""
    generation_config: dict[str, Any] | None
    packed_by: str | None = None
    """How the weights are quantized in the files, in words; None where they are plain.  Reading gives plain ones all the same."""

    @property
    @abstractmethod
    def tensors(self) -> Mapping[str, TensorInfo]:
        """All tensors by their Hugging Face names, in record order (the order in which outputs list them)."""

    @abstractmethod
    def read(self, name: str) -> np.ndarray:
        """One tensor; bfloat16 is `ml_dtypes.bfloat16`.  Raises InputError when it is missing or cannot be read."""

    def says_nothing(self, name: str) -> bool:
        """Whether the values of a tensor that no parameter is made from show that it has no effect: a bias of zeros.

        Raises InputError when it cannot be read.
        """
        module, _, part = name.rpartition(".")
        weight = self.tensors.get(f"{module}.weight")
        if part != "bias" or weight is None or self.tensors[name].shape != weight.shape[:1]:
            return False
        return not self.read(name).any()

    def parts(self, name: str) -> Iterator[np.ndarray]:
        """The elements of one tensor in order, a span at a time (see `spans`); from a file that can be read so, without the rest
        in memory.  Raises InputError as `read` does."""
        return in_parts(self.read(name))

    def location(self, name: str) -> str | None:
        """Where a tensor lies, for messages: its file, or the format when there is no file to name."""
        return self.format if name in self.tensors else None

    @abstractmethod
    def close(self) -> None:
        """Close the files; closing twice is harmless."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def numpy_dtype(name: str) -> np.dtype[Any]:
    """The NumPy dtype of a name of `ITEM_SIZES`, from ml_dtypes for the ones that NumPy lacks."""
    import ml_dtypes
    import numpy as np

    special = getattr(ml_dtypes, name, None)
    return np.dtype(name if special is None else special)


def spans(shape: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """(first element, elements) of the parts of a tensor: as many whole rows as `PART_ELEMENTS` has, at least one."""
    size = math.prod(shape)
    row = shape[-1] if shape and size else 1
    step = max(1, PART_ELEMENTS // row) * row
    return ((start, min(step, size - start)) for start in range(0, size, step))


def in_parts(value: np.ndarray) -> Iterator[np.ndarray]:
    """The elements of an array in order, a span at a time."""
    flat = value.reshape(-1)
    return (flat[start : start + count] for start, count in spans(value.shape))


def is_plausible(shape: tuple[int, ...], item_size: int) -> bool:
    """Whether NumPy supports an array of this shape at all, whatever the memory."""
    return len(shape) <= MAX_DIMENSIONS and math.prod(max(size, 1) for size in shape) * item_size < MAX_BYTES
