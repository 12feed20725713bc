"""A weight that several stored tensors stand for, and what the methods share: looking at the tensors, unpacking, blocks of rows.

A number is a whole number q or a float of 8 bits; it stands for (q - zero point) * scale.  The product is computed in float32,
which holds it exactly for scales of 16 bits, and is rounded once, to the number type that the method's own library gives it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from llmbuild.checkpoints.packed.stated import FIX, Quantization
from llmbuild.checkpoints.tensor import TensorInfo, numpy_dtype
from llmbuild.errors import InputError
from llmbuild.printable import either

if TYPE_CHECKING:
    import numpy as np

Array: TypeAlias = "np.ndarray[Any, Any]"

FLOATS = ("float16", "bfloat16", "float32")
"""The number types of scales, and of the weights that come of them."""

FLOAT8 = ("float8_e4m3fn", "float8_e5m2")

BLOCK_ELEMENTS = 1 << 20
"""Numbers of a weight that are computed at a time."""


@dataclass(frozen=True, slots=True)
class PackedWeight:
    """A weight as `info` describes it, made of the tensors named `parts`, which stand for nothing else.

    `unpack` reads them and computes the weight; it raises InputError when a value in them is not possible.
    """

    info: TensorInfo
    parts: tuple[str, ...]
    unpack: Callable[[], Array]


class Method(Protocol):
    """A way to pack weights, as a configuration describes it."""

    @property
    def quantization(self) -> Quantization: ...

    @property
    def described(self) -> str:
        """The method and its bits, for a note."""
        ...

    @property
    def may_be_plain(self) -> bool:
        """Whether a checkpoint of this configuration may have no packed weight at all."""
        ...

    @property
    def endings(self) -> tuple[str, ...]:
        """The endings of the names of tensors that serve the computation with quantized activations, not the weights."""
        ...

    def weights(self, stored: Stored) -> Iterable[PackedWeight]:
        """The weights that are packed.  Raises InputError where tensors do not fit each other or the configuration."""
        ...


@dataclass(frozen=True, slots=True)
class Stored:
    """The tensors of a checkpoint as a method sees them."""

    tensors: Mapping[str, TensorInfo]
    read: Callable[[str], Array]
    location: Callable[[str], str | None]

    def modules(self, ending: str) -> list[str]:
        """The modules that have a tensor of this name: what stands before ".ending"."""
        return [name[: -len(ending) - 1] for name in self.tensors if name.endswith(f".{ending}")]

    def info(self, name: str, dtypes: tuple[str, ...], shape: tuple[int, ...] | None = None) -> TensorInfo:
        """A tensor that must be there, with a number type of these and this shape.  Raises InputError."""
        info = self.tensors.get(name)
        if info is None:
            module, _, part = name.rpartition(".")
            raise InputError(
                f"tensor {name!r} is missing", why=f"the packed weight of {module!r} needs its {part}", fix=FIX
            )
        if info.dtype not in dtypes:
            raise self.bad(name, f"it is {info.dtype}; expected is {either(dtypes)}")
        if shape is not None and info.shape != shape:
            raise self.bad(name, f"it has shape {list(info.shape)}; the others of its weight need {list(shape)}")
        return info

    def matrix(self, name: str, dtypes: tuple[str, ...]) -> TensorInfo:
        """Like `info`, of a tensor that has two dimensions, none of them 0."""
        info = self.info(name, dtypes)
        if len(info.shape) != 2 or 0 in info.shape:
            raise self.bad(name, f"it has shape {list(info.shape)}, and a packed weight has two dimensions")
        return info

    def bad(self, name: str, why: str) -> InputError:
        """The error for a tensor that is not as a method packs it."""
        what = f"tensor {name!r} does not fit the quantized weights"
        return InputError(
            what, where=self.location(name), why=why, fix="fetch the checkpoint again, or take another one"
        )


def words(count: int, bits: int) -> int:
    """The number of 32-bit words that hold so many numbers, one after another."""
    return -(-count * bits // 32)


def unpack_bits(packed: Array, bits: int, count: int) -> Array:
    """The first `count` numbers of each row of 32-bit words, as bytes: from the lowest bit on, some across two words."""
    import numpy as np

    numbers: Array
    if bits in (2, 4, 8):
        octets = np.ascontiguousarray(packed).view(np.uint8)
        if bits == 8:
            return octets[:, :count]
        numbers = np.empty((*octets.shape, 8 // bits), np.uint8)
        for place in range(8 // bits):
            numbers[..., place] = octets >> np.uint8(bits * place) & np.uint8((1 << bits) - 1)
        return numbers.reshape(len(packed), -1)[:, :count]
    starts = np.arange(count, dtype=np.int64) * bits
    padded = np.zeros((len(packed), packed.shape[1] + 1), np.uint64)
    padded[:, :-1] = np.ascontiguousarray(packed).view(np.uint32)
    pairs = padded[:, starts // 32] | padded[:, starts // 32 + 1] << np.uint64(32)
    numbers = pairs >> (starts % 32).astype(np.uint64) & np.uint64((1 << bits) - 1)
    return numbers.astype(np.uint8)


def by_rows(info: TensorInfo, block: Callable[[slice], Array], align: int = 1) -> Array:
    """A weight, from a function that computes some of its rows in float32; blocks begin at multiples of `align`."""
    import numpy as np

    rows, columns = info.shape
    result = np.empty(info.shape, numpy_dtype(info.dtype))
    step = max(1, BLOCK_ELEMENTS // columns // align) * align
    # An overflow is an infinity in the result, which is for the consumer to judge, not a warning.
    with np.errstate(all="ignore"):
        for start in range(0, rows, step):
            part = slice(start, min(start + step, rows))
            result[part] = block(part)
    return result


def check_groups(stored: Stored, name: str, indices: Array, groups: int) -> None:
    """Raise InputError unless each column's group, as act-order stores it, is one that has a scale."""
    if indices.size and (indices.min() < 0 or indices.max() >= groups):
        raise stored.bad(name, f"it names groups from {indices.min()} to {indices.max()}, and there are {groups}")
