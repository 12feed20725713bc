"""A checkpoint whose packed weights are read as plain ones: a view that unpacks a tensor when it is read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from llmbuild.checkpoints.packed.quantization import method_of
from llmbuild.checkpoints.packed.stated import FIX, Quantization
from llmbuild.checkpoints.packed.weight import Method, PackedWeight, Stored
from llmbuild.checkpoints.tensor import Checkpoint, TensorInfo, in_parts
from llmbuild.checkpoints.view import CheckpointView
from llmbuild.errors import InputError

if TYPE_CHECKING:
    import numpy as np

CACHE_SCALES = (
    "k_scale",
    "v_scale",
    "q_scale",
    "kv_scale",
    "k_zero_point",
    "v_zero_point",
    "k_proj.output_scale",
    "v_proj.output_scale",
)
"""Endings of the scales of a cache of 8-bit keys and values, and of what is multiplied with it, whatever the method."""

MARKS: Mapping[str, str] = {
    ".qweight": "GPTQ or AWQ",
    ".weight_packed": "compressed-tensors",
    ".weight_scale_inv": "FP8",
    ".weight_scale": "compressed-tensors or FP8",
    ".absmax": "bitsandbytes",
    ".SCB": "bitsandbytes",
    ".W_q": "HQQ",
    ".weight._data": "Quanto",
    ".codebooks": "AQLM",
}
"""Endings of names of tensors that no plain weight has, and the methods that write them."""

WHOLE = (
    *("int8", "uint8", "int16", "uint16", "int32", "uint32", "float4_e2m1fn", "float6_e2m3fn", "float6_e3m2fn"),
    *("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu"),
)
"""Number types of a `weight` that is not plain."""


def unpacked(base: Checkpoint, quantization: Quantization | None, note: Callable[[str], None]) -> Checkpoint:
    """`base` with plain weights in the place of packed ones; `base` itself where nothing is packed.

    `quantization` is what `check_quantization` says of it.  Raises InputError when tensors do not fit that or each other.
    """
    if quantization is None:
        refuse_packed(base, "the weights are quantized, and no file says how")
        return base
    method = method_of(quantization, base.config)
    stored = Stored(base.tensors, base.read, base.location)
    weights = list(method.weights(stored))
    for weight in weights:
        if weight.info.name in base.tensors and weight.info.name not in weight.parts:
            raise stored.bad(weight.info.name, f"it is plain, and {weight.parts[0]!r} is the same weight packed")
    if not weights:
        refuse_packed(base, f"the weights are not quantized by {quantization.label}, as {quantization.where()} has it")
        if quantization.file != "config.json":
            # A file that a packer left beside weights which are plain again.
            return base
        if not method.may_be_plain:
            raise InputError(
                f"no weight is quantized, and the configuration names {quantization.label}",
                where=quantization.where(),
                why="readers that go by it expect packed weights",
                fix=f'set ignore-keys = ["{quantization.key}"] in the model\'s table, if the weights are those of the original',
            )
    return UnpackedCheckpoint(base, method, weights, note)


def refuse_packed(base: Checkpoint, what: str) -> None:
    """Raise InputError, saying `what`, when a tensor shows that weights are packed."""
    for name, info in base.tensors.items():
        mark = next((mark for mark in MARKS if name.endswith(mark)), None)
        if mark is None and not (name.endswith(".weight") and info.dtype in WHOLE):
            continue
        why = f"'{name}' is what {MARKS[mark]} writes" if mark else f"'{name}' is {info.dtype}"
        raise InputError(what, where=base.location(name), why=why, fix=FIX)


class UnpackedCheckpoint(CheckpointView):
    """See `unpacked`.  A weight is where the first of its tensors was; scales of activations and of a cache are left out."""

    def __init__(
        self, base: Checkpoint, method: Method, weights: list[PackedWeight], note: Callable[[str], None]
    ) -> None:
        super().__init__(base)
        self.packed_by = method.described if weights else None
        self._weights = {weight.info.name: weight for weight in weights}
        of_part = {part: weight for weight in weights for part in weight.parts}
        self._tensors: dict[str, TensorInfo] = {}
        cached = 0
        for name, info in base.tensors.items():
            if name in of_part:
                self._tensors.setdefault(of_part[name].info.name, of_part[name].info)
            elif name.endswith(tuple(f".{ending}" for ending in CACHE_SCALES)):
                cached += 1
            elif not name.endswith(tuple(f".{ending}" for ending in method.endings)):
                self._tensors[name] = info
        if cached:
            note(f"{cached} scales of a cache of 8-bit keys and values are not used: this one holds them unquantized")

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        return self._tensors

    def read(self, name: str) -> np.ndarray:
        weight = self._weights.get(name)
        return super().read(name) if weight is None else weight.unpack()

    def parts(self, name: str) -> Iterator[np.ndarray]:
        return in_parts(self.read(name)) if name in self._weights else super().parts(name)

    def _stored(self, name: str) -> str:
        weight = self._weights.get(name)
        return name if weight is None else weight.parts[0]
