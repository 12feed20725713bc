"""AWQ, in AutoAWQ's layout "gemm": of a weight [n, k], `qweight` [k, n / 8], `qzeros` [groups, n / 8], `scales` [groups, n].

Numbers have 4 bits and are packed along n, eight neighbours to a word, in the order 0, 2, 4, 6, 1, 3, 5, 7 from the lowest bits
on.  AutoAWQ computes the weights in the number type of the scales.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from llmbuild.checkpoints.packed.stated import Quantization
from llmbuild.checkpoints.packed.weight import FLOATS, Array, PackedWeight, Stored, by_rows, unpack_bits
from llmbuild.checkpoints.tensor import TensorInfo

PLACES = (0, 4, 1, 5, 2, 6, 3, 7)
"""Where in its word, in steps of 4 bits, each of eight neighbouring outputs is."""


@dataclass(frozen=True, slots=True)
class Awq:
    """Raises InputError when made of a configuration of another form."""

    quantization: Quantization
    group_size: int
    endings: tuple[str, ...] = ()

    @classmethod
    def of(cls, quantization: Quantization) -> Awq:
        quantization.choice(("version", "format"), "gemm", ("gemm",))
        if quantization.values.get("backend") == "llm-awq":
            raise quantization.refused("backend", "llm-awq packs in an order of its own")
        quantization.integer("bits", 4, (4,))
        return cls(quantization, quantization.integer("group_size", 128))

    @property
    def may_be_plain(self) -> bool:
        return False

    @property
    def described(self) -> str:
        return f"{self.quantization.label}, 4 bits"

    def weights(self, stored: Stored) -> Iterator[PackedWeight]:
        for module in stored.modules("qweight"):
            yield self._weight(stored, module)

    def _weight(self, stored: Stored, module: str) -> PackedWeight:
        k, columns = stored.matrix(f"{module}.qweight", ("int32", "uint32")).shape
        n, size = columns * 8, k if self.group_size == -1 else self.group_size
        if k % size:
            raise stored.bad(f"{module}.qweight", f"its {k} inputs are not whole groups of {size}")
        stored.info(f"{module}.qzeros", ("int32", "uint32"), (k // size, columns))
        scales = stored.info(f"{module}.scales", FLOATS, (k // size, n))
        info = TensorInfo.of(f"{module}.weight", (n, k), scales.dtype)
        names = tuple(f"{module}.{part}" for part in ("qweight", "qzeros", "scales"))
        return PackedWeight(info, names, lambda: _unpack(stored, names, info, size))


def _unpack(stored: Stored, names: tuple[str, ...], info: TensorInfo, size: int) -> Array:
    import numpy as np

    k = info.shape[1]
    packed, zeros, scales = (stored.read(name) for name in names)
    zero = _in_order(zeros)

    def block(part: slice) -> Array:
        numbers = _in_order(packed[:, part.start // 8 : part.stop // 8]).T.astype(np.float32)
        grouped = numbers.reshape(len(numbers), k // size, size)
        grouped -= zero[:, part].T.astype(np.float32)[:, :, None]
        grouped *= scales[:, part].T.astype(np.float32)[:, :, None]
        return grouped.reshape(len(numbers), k)

    return by_rows(info, block, align=8)


def _in_order(packed: Array) -> Array:
    """Numbers [rows, n] of words [rows, n / 8]."""
    count = packed.shape[1] * 8
    numbers = unpack_bits(packed, 4, count).reshape(len(packed), -1, 8)
    return numbers[:, :, PLACES].reshape(len(packed), count)
