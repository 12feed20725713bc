"""GPTQ: of a weight [n, k], `qweight` [k * bits / 32, n], `qzeros` [groups, n * bits / 32], `scales` [groups, n], `g_idx` [k].

Numbers are packed along k, zero points along n, the first in the lowest bits.  `g_idx` names each input's group; with act-order
the groups are not in order.  Format "gptq" (v1) stores zero points less 1, "gptq_v2" stores them as they are.  GPTQModel reads
both, and computes in the number type of the scales.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from llmbuild.checkpoints.packed.stated import Quantization
from llmbuild.checkpoints.packed.weight import (
    FLOATS,
    Array,
    PackedWeight,
    Stored,
    by_rows,
    check_groups,
    unpack_bits,
    words,
)
from llmbuild.checkpoints.tensor import TensorInfo
from llmbuild.printable import either

BITS = (2, 3, 4, 8)


@dataclass(frozen=True, slots=True)
class Gptq:
    """Raises InputError when made of a configuration of another form."""

    quantization: Quantization
    bits: int
    group_size: int
    first_format: bool
    endings: tuple[str, ...] = ()

    @classmethod
    def of(cls, quantization: Quantization) -> Gptq:
        values = quantization.values
        format = quantization.choice(("checkpoint_format", "format"), "gptq", ("gptq", "gptq_v2"))
        if values.get("is_marlin_format"):
            raise quantization.refused("is_marlin_format", "the weights are sorted for the kernels of Marlin")
        quantization.choice(("pack_dtype",), "int32", ("int32",))
        bits = quantization.integer("bits", None, BITS)
        return cls(quantization, bits, quantization.integer("group_size", 128), format == "gptq")

    @property
    def may_be_plain(self) -> bool:
        return False

    @property
    def described(self) -> str:
        return f"{self.quantization.label}, {self.bits} bits"

    def weights(self, stored: Stored) -> Iterator[PackedWeight]:
        for module in stored.modules("qweight"):
            yield self._weight(stored, module)

    def _weight(self, stored: Stored, module: str) -> PackedWeight:
        packed = stored.matrix(f"{module}.qweight", ("int32", "uint32"))
        rows, n = packed.shape
        index = f"{module}.g_idx"
        ordered = index in stored.tensors
        k = rows * 32 // self.bits
        if ordered:
            k = math.prod(stored.info(index, ("int32", "int64")).shape)
            stored.info(index, ("int32", "int64"), (k,))
        bits = self._bits(stored, packed, k)
        scales = stored.matrix(f"{module}.scales", FLOATS)
        groups = scales.shape[0]
        size = k if self.group_size == -1 else self.group_size
        if self._exceptions:
            size = -(-k // groups)
        if groups != -(-k // size):
            raise stored.bad(scales.name, f"it has {groups} groups, and {k} inputs are {-(-k // size)} of {size}")
        stored.info(scales.name, FLOATS, (groups, n))
        stored.info(f"{module}.qzeros", ("int32", "uint32"), (groups, words(n, bits)))
        if not ordered and groups > 1 and self.quantization.values.get("desc_act"):
            raise stored.bad(packed.name, f"desc_act is true, and no {index!r} says in which group each input is")
        info = TensorInfo.of(f"{module}.weight", (n, k), scales.dtype)
        names = tuple(f"{module}.{part}" for part in ("qweight", "qzeros", "scales", *(["g_idx"] if ordered else [])))
        return PackedWeight(info, names, lambda: self._unpack(stored, names, info, bits, size))

    @property
    def _exceptions(self) -> bool:
        """Whether some weights have other bits or groups; their tensors show which."""
        return bool(self.quantization.values.get("dynamic"))

    def _bits(self, stored: Stored, packed: TensorInfo, k: int) -> int:
        """The bits of one weight: those of the configuration, or others where its `dynamic` names exceptions."""
        allowed = BITS if self._exceptions else (self.bits,)
        for bits in allowed:
            if packed.shape[0] * 32 == k * bits:
                return bits
        why = f"{k} inputs in {packed.shape[0]} words are not {either(map(str, allowed))} bits each"
        raise stored.bad(packed.name, f"{why}, as {self.quantization.where('bits')} has it")

    def _unpack(self, stored: Stored, names: tuple[str, ...], info: TensorInfo, bits: int, size: int) -> Array:
        import numpy as np

        n, k = info.shape
        packed, zeros, scales = (stored.read(name) for name in names[:3])
        groups = stored.read(names[3]) if len(names) > 3 else np.arange(k) // size
        check_groups(stored, names[-1], groups, len(scales))
        zero = unpack_bits(zeros, bits, n)
        if self.first_format:
            zero = zero + np.uint8(1) & np.uint8((1 << bits) - 1)
        in_order = bool((groups == np.arange(k) // size).all()) and k % size == 0

        def block(part: slice) -> Array:
            numbers = unpack_bits(packed[:, part].T, bits, k).astype(np.float32)
            scale, offset = scales[:, part].T.astype(np.float32), zero[:, part].T.astype(np.float32)
            if in_order:
                grouped = numbers.reshape(len(numbers), -1, size)
                grouped -= offset[:, :, None]
                grouped *= scale[:, :, None]
            else:
                numbers -= offset[:, groups]
                numbers *= scale[:, groups]
            return numbers

        return by_rows(info, block)
