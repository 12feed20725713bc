"""compressed-tensors, in its formats pack-quantized, int-quantized and float-quantized (and naive-quantized, which is both).

Packed: `weight_packed` [n, k * bits / 32] of whole numbers plus 2^(bits - 1), `weight_shape`, and, where it is asymmetric,
`weight_zero_point`, packed along n.  The others: `weight` of int8 or 8-bit floats.  Both have a `weight_scale` for the tensor, an
output, a group of inputs or a block, and a packed weight with act-order has `weight_g_idx`.  The library computes in the number
type of the scales.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from llmbuild.checkpoints.packed.fp8 import as_float, scaled
from llmbuild.checkpoints.packed.stated import Quantization, is_size, shown
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

PACKED = "pack-quantized"
FORMATS = (PACKED, "int-quantized", "float-quantized", "naive-quantized")
STRATEGIES = ("tensor", "channel", "group", "block")
ACT_ORDERS = ("group", "dynamic", "weight", "static")
"""Values of `actorder`, which older versions took.  The last two change how a weight was rounded and not how it is stored; the
first two put inputs into groups out of order, which only `weight_g_idx` says."""


@dataclass(frozen=True, slots=True)
class Arguments:
    """How the weights of a group of modules are quantized."""

    packed: bool
    bits: int
    float: bool
    symmetric: bool
    strategy: str
    group_size: int
    block: tuple[int, int]
    act_order: bool = False

    @property
    def dtype(self) -> str:
        """The number type that they are stored in."""
        return "int32" if self.packed else "float8_e4m3fn" if self.float else "int8"

    def steps(self, n: int, k: int) -> tuple[int, int]:
        """How many rows and columns of a weight [n, k] have the same scale."""
        return {"tensor": (n, k), "channel": (1, k), "group": (1, self.group_size), "block": self.block}[self.strategy]

    def grid(self, n: int, k: int) -> tuple[int, int]:
        """The shape of the scales of a weight [n, k]."""
        rows, columns = self.steps(n, k)
        return -(-n // rows), -(-k // columns)


@dataclass(frozen=True, slots=True)
class Compressed:
    """Raises InputError when made of a configuration of another form."""

    quantization: Quantization
    groups: tuple[Arguments, ...]
    endings: tuple[str, ...] = (
        "input_scale",
        "input_zero_point",
        "input_global_scale",
        "output_scale",
        "output_zero_point",
    )

    @classmethod
    def of(cls, quantization: Quantization) -> Compressed:
        values = quantization.values
        for key, what in (
            ("transform_config", "its transforms rotate the activations too"),
            ("sparsity_config", "its weights are stored without their zeros"),
        ):
            changed = values.get(key)
            inactive = isinstance(changed, Mapping) and changed.get("format", "dense") == "dense" and key[0] == "s"
            if changed and not inactive:
                raise quantization.refused(key, what)
        groups = values.get("config_groups")
        if groups is None and values.get("kv_cache_scheme") is not None:
            groups = {}
        if not isinstance(groups, Mapping):
            raise quantization.refused("config_groups", f"config_groups is {shown(groups)}, and must be an object")
        found = (_arguments(quantization, name, group) for name, group in groups.items())
        return cls(quantization, tuple(dict.fromkeys(each for each in found if each is not None)))

    @property
    def may_be_plain(self) -> bool:
        """A configuration without groups quantizes the cache alone."""
        return not self.groups

    @property
    def described(self) -> str:
        bits = " and ".join(str(bits) for bits in sorted({group.bits for group in self.groups}))
        return f"compressed-tensors, {bits} bits"

    def weights(self, stored: Stored) -> Iterator[PackedWeight]:
        for module in stored.modules("weight_packed"):
            yield self._packed(stored, module)
        for module in stored.modules("weight_scale"):
            if f"{module}.weight_packed" not in stored.tensors:
                yield self._plain(stored, module)

    def _packed(self, stored: Stored, module: str) -> PackedWeight:
        name, index = f"{module}.weight_packed", f"{module}.weight_g_idx"
        n, columns = stored.matrix(name, ("int32",)).shape
        scale = stored.info(f"{module}.weight_scale", FLOATS)
        declared = stored.info(f"{module}.weight_shape", ("int32", "int64"), (2,)).name
        k = self._columns(stored, scale, declared)
        candidates = [each for each in self.groups if each.packed and words(k, each.bits) == columns]
        arguments = self._fitting(stored, module, (n, k), candidates)
        bits, grid = arguments.bits, arguments.grid(n, k)
        if bits not in (1, 2, 4, 8) and k % 32:
            raise stored.bad(name, f"rows of {k} numbers of {bits} bits are packed in another order by older versions")
        packed_zeros = arguments.strategy in ("group", "channel")
        zero = self._zero(stored, module, grid, words(n, bits) if packed_zeros else None)
        if index in stored.tensors:
            stored.info(index, ("int32", "int64"), (k,))
        elif arguments.act_order and grid[1] > 1:
            raise stored.bad(name, f"actorder is 'group', and no {index!r} says in which group each input is")
        info = TensorInfo.of(f"{module}.weight", (n, k), scale.dtype)
        named = (name, scale.name, declared, f"{module}.weight_zero_point", index)
        parts = tuple(part for part in named if part in stored.tensors)

        def unpack() -> Array:
            shape = stored.read(declared).tolist()
            if shape != [n, k]:
                raise stored.bad(declared, f"it says {shape}, and the packed numbers are those of {[n, k]}")
            zeros = None if zero is None else stored.read(zero)
            if zeros is not None and zeros.dtype != "int8":
                zeros = unpack_bits(zeros.T, bits, n).T.astype("int16") - (1 << bits - 1)
            groups = stored.read(index) if index in stored.tensors else None
            if groups is not None and (groups < 0).all():
                # A weight that was quantized in order, of a library that has the tensor all the same.
                groups = None
            if groups is not None:
                check_groups(stored, index, groups, grid[1])
            return _unpacked(info, arguments, stored.read(name), as_float(stored.read(scale.name)), zeros, groups)

        return PackedWeight(info, parts, unpack)

    def _columns(self, stored: Stored, scale: TensorInfo, declared: str) -> int:
        """The inputs of a packed weight: those of the scales' groups; else read from where they are declared, a read a weight."""
        groups = [each for each in self.groups if each.packed]
        sizes = {each.group_size for each in groups}
        if len(sizes) == 1 and groups[0].strategy == "group" and len(scale.shape) == 2:
            return scale.shape[1] * groups[0].group_size
        columns = int(stored.read(declared)[1])
        if not 0 < columns < 1 << 31:
            raise stored.bad(declared, f"it says that there are {columns} inputs")
        return columns

    def _plain(self, stored: Stored, module: str) -> PackedWeight:
        name = f"{module}.weight"
        found = stored.matrix(name, ("int8", "float8_e4m3fn"))
        n, k = found.shape
        candidates = [each for each in self.groups if not each.packed and each.dtype == found.dtype]
        arguments = self._fitting(stored, module, (n, k), candidates)
        scale = stored.info(f"{module}.weight_scale", FLOATS)
        zero = self._zero(stored, module, arguments.grid(n, k), None)
        info = TensorInfo.of(name, (n, k), scale.dtype)
        parts = (name, scale.name) if zero is None else (name, scale.name, zero)

        def unpack() -> Array:
            zeros = None if zero is None else stored.read(zero)
            return scaled(info, stored.read(name), as_float(stored.read(scale.name)), arguments.steps(n, k), zeros)

        return PackedWeight(info, parts, unpack)

    def _zero(self, stored: Stored, module: str, grid: tuple[int, int], rows: int | None) -> str | None:
        """The tensor of zero points, if there is one: bytes in the shape of the scales, or packed in so many rows."""
        name = f"{module}.weight_zero_point"
        if name not in stored.tensors:
            return None
        found = stored.info(name, ("int8",) if rows is None else ("int8", "int32"))
        wanted = (rows, grid[1]) if found.dtype == "int32" else grid
        if not (found.shape == wanted or (found.dtype == "int8" and _same(found.shape, grid))):
            raise stored.bad(name, f"it has shape {list(found.shape)}, and the weight needs {list(wanted)}")
        return name

    def _fitting(self, stored: Stored, module: str, shape: tuple[int, int], groups: list[Arguments]) -> Arguments:
        """The one of the groups whose scales and zero points have the shapes that this module's have.

        A configuration says by patterns of names which group is whose; the tensors tell it as well.
        """
        scale = stored.info(f"{module}.weight_scale", FLOATS)
        zeros = f"{module}.weight_zero_point" in stored.tensors
        fitting = [
            each
            for each in groups
            if (each.symmetric or zeros)
            and _same(scale.shape, each.grid(*shape))
            and (each.strategy != "group" or shape[1] % each.group_size == 0)
        ]
        if len({(each.bits, each.steps(*shape)) for each in fitting}) == 1:
            return min(fitting, key=lambda each: each.act_order)
        what = "no group of config_groups" if not fitting else "more than one group of config_groups"
        why = f"a weight of shape {list(shape)} with scales of shape {list(scale.shape)}"
        raise stored.bad(scale.name, f"{what} describes {why} {'and' if zeros else 'without'} zero points")


def _same(shape: tuple[int, ...], grid: tuple[int, int]) -> bool:
    """Whether scales of this shape are a grid, whose dimensions of one element may be left out."""
    return shape == grid or (grid[1] == 1 and shape == grid[:1]) or (grid == (1, 1) and shape == ())


def _unpacked(
    info: TensorInfo, arguments: Arguments, packed: Array, scales: Array, zeros: Array | None, groups: Array | None
) -> Array:
    import numpy as np

    n, k = info.shape
    rows, columns = arguments.steps(n, k)
    scale = scales.reshape(arguments.grid(n, k))
    offset = np.float32(1 << arguments.bits - 1)
    zero = None if zeros is None else zeros.astype(np.float32).reshape(scale.shape)
    index = np.arange(k) // columns if groups is None else groups

    def block(part: slice) -> Array:
        numbers = unpack_bits(packed[part], arguments.bits, k).astype(np.float32)
        numbers -= offset
        mine = np.arange(part.start, part.stop) // rows
        if zero is not None:
            numbers -= zero[mine][:, index]
        numbers *= scale[mine][:, index]
        return numbers

    return by_rows(info, block)


def _arguments(quantization: Quantization, name: str, group: Any) -> Arguments | None:
    """The weights' part of a group; None where it quantizes activations alone."""
    key = f"config_groups.{name}"
    if not isinstance(group, Mapping):
        raise quantization.refused(key, f"{name} is {shown(group)}, and must be an object that says what it means")
    weights = group.get("weights")
    if weights is None:
        return None
    if not isinstance(weights, Mapping):
        raise quantization.refused(f"{key}.weights", f"weights is {shown(weights)}, and must be an object")
    own = "format" if group.get("format") is None else f"{key}.format"
    inner = {**weights, "format": group.get("format") or quantization.values.get("format")}
    part = Quantization(quantization.method, inner, quantization.file, f"{quantization.key}.{key}.weights")
    format = inner["format"]
    if format not in FORMATS:
        raise quantization.refused(own, f"the format is {shown(format)}, and must be one of {', '.join(FORMATS)}")
    kind = part.choice(("type",), "int", ("int",) if format == PACKED else ("int", "float"))
    bits = part.integer("num_bits", 8, (8,) if kind == "float" else range(1, 9))
    size = part.values.get("group_size")
    default = "tensor" if size is None else "channel" if size == -1 else "group"
    strategy = part.choice(("strategy",), default, STRATEGIES)
    grouped = part.integer("group_size", None) if strategy == "group" else 0
    if grouped == -1:
        raise part.refused("group_size", "a group has -1 inputs")
    order = part.values.get("actorder")
    # An older spelling of "group" is true.
    if isinstance(order, bool):
        order = "group" if order else None
    if order is not None and (not isinstance(order, str) or order.lower() not in ACT_ORDERS):
        raise part.refused("actorder", f"actorder is {shown(order)}, and must be {either(ACT_ORDERS)}")
    act_order = strategy == "group" and order is not None and order.lower() in ACT_ORDERS[:2]
    if act_order and format != PACKED:
        raise part.refused("actorder", f"inputs are in groups out of order, which is read where the format is {PACKED}")
    return Arguments(
        format == PACKED,
        bits,
        kind == "float",
        weights.get("symmetric", True) is not False,
        strategy,
        grouped,
        _block(part) if strategy == "block" else (0, 0),
        act_order,
    )


def _block(part: Quantization) -> tuple[int, int]:
    """The rows and columns of a block: two numbers, or "128x128" as older versions write them."""
    block = part.values.get("block_structure")
    if isinstance(block, str):
        block = [int(size) if size.isascii() and size.isdigit() else 0 for size in block[:40].split("x")]
    if not isinstance(block, list) or len(block) != 2 or not all(is_size(size) for size in block):
        raise part.refused("block_structure", f"block_structure is {shown(block)}, and must be two numbers above 0")
    return block[0], block[1]
