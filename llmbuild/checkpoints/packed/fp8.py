"""FP8: a weight of 8-bit floats beside its scales: one, one an output, or one a block of `weight_block_size`.

transformers names the scales `weight_scale_inv` and multiplies all the same; packers for vLLM and FBGEMM name them
`weight_scale`.  MXFP8 has a power of two for 32 inputs, and the FP8 of ModelOpt one scale, or one an output.  The product is
computed in float32 and rounded to the number type of the model, as transformers does it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from llmbuild.checkpoints.packed.stated import Quantization, is_size, shown
from llmbuild.checkpoints.packed.weight import FLOAT8, FLOATS, Array, PackedWeight, Stored, by_rows
from llmbuild.checkpoints.tensor import TensorInfo

SCALES = ("weight_scale_inv", "weight_scale")
MODELOPT = ("fp8", "fp8_per_channel_per_token")
"""The algorithms of ModelOpt that are FP8 with one scale a tensor, or one an output."""
EXPONENTS = ("uint8", "float8_e8m0fnu")
"""Scales that are powers of two, stored as the exponent plus 127."""


@dataclass(frozen=True, slots=True)
class Fp8:
    """Raises InputError when made of a configuration of another form."""

    quantization: Quantization
    block: tuple[int, int]
    dtype: str | None
    endings: tuple[str, ...] = ("input_scale", "activation_scale", "input_scale_ub", "input_activation_scale")

    @classmethod
    def of(cls, quantization: Quantization, config: Mapping[str, Any]) -> Fp8:
        if quantization.method == "modelopt":
            quantization.choice(("quant_algo",), "", MODELOPT)
        block = quantization.values.get("weight_block_size")
        if block is None:
            block = [1, 32] if quantization.method == "mxfp8" else [128, 128]
        if not isinstance(block, list) or len(block) != 2 or not all(is_size(size) for size in block):
            raise quantization.refused(
                "weight_block_size", f"weight_block_size is {shown(block)}, and must be two numbers above 0"
            )
        dtype = config.get("dtype") or config.get("torch_dtype")
        return cls(quantization, (block[0], block[1]), str(dtype) if dtype in FLOATS else None)

    @property
    def may_be_plain(self) -> bool:
        return True

    @property
    def described(self) -> str:
        return "FP8" if self.quantization.method == "fp8" else self.quantization.label

    def weights(self, stored: Stored) -> Iterator[PackedWeight]:
        dtype = self.dtype or _first_dtype(stored)
        for module in stored.modules("weight"):
            name = f"{module}.weight"
            scale = next((f"{module}.{key}" for key in SCALES if f"{module}.{key}" in stored.tensors), None)
            if stored.tensors[name].dtype not in FLOAT8:
                if scale is not None:
                    raise stored.bad(name, f"it is {stored.tensors[name].dtype}, and {scale!r} is for floats of 8 bits")
                continue
            if scale is None:
                raise stored.bad(name, f"it is {stored.tensors[name].dtype}, and has no {' and no '.join(SCALES)}")
            yield self._weight(stored, name, scale, dtype)

    def _weight(self, stored: Stored, name: str, scale: str, dtype: str) -> PackedWeight:
        n, k = stored.matrix(name, FLOAT8).shape
        shape = stored.info(scale, (*FLOATS, *EXPONENTS)).shape
        steps = scale_steps(shape, n, k, self.block)
        if steps is None:
            blocks = [-(-n // self.block[0]), -(-k // self.block[1])]
            why = f"it has shape {list(shape)}; a weight {[n, k]} has one scale, {n}, or {blocks} of blocks"
            raise stored.bad(scale, f"{why} {list(self.block)}")
        info = TensorInfo.of(name, (n, k), dtype)

        def unpack() -> Array:
            return scaled(info, stored.read(name), as_float(stored.read(scale)), steps)

        return PackedWeight(info, (name, scale), unpack)


def _first_dtype(stored: Stored) -> str:
    """What transformers takes where the configuration has no number type: that of the first tensor by the name of its file, and
    by its own, which has one that a model can have."""
    names = (name for name, info in stored.tensors.items() if info.dtype in FLOATS)
    first = min(names, key=lambda name: (stored.location(name) or "", name), default=None)
    return "bfloat16" if first is None else stored.tensors[first].dtype


def scale_steps(shape: tuple[int, ...], n: int, k: int, block: tuple[int, int]) -> tuple[int, int] | None:
    """How many rows and columns of a weight [n, k] have the same scale, where the scales have this shape; None if none fits."""
    if shape in ((), (1,), (1, 1)):
        return n, k
    if shape in ((n,), (n, 1)):
        return 1, k
    return block if shape == (-(-n // block[0]), -(-k // block[1])) else None


def as_float(scales: Array) -> Array:
    """Scales in float32; bytes are exponents."""
    import numpy as np

    if scales.dtype == np.uint8:
        with np.errstate(over="ignore"):
            powers: Array = np.exp2(scales.astype(np.float32) - np.float32(127))
        return powers
    return scales.astype(np.float32)


def scaled(
    info: TensorInfo, numbers: Array, scales: Array, steps: tuple[int, int], zeros: Array | None = None
) -> Array:
    """(numbers - zeros) * scales, where `steps` of rows and columns share a scale and a zero point."""
    import numpy as np

    n, k = info.shape
    rows = np.arange(n) // steps[0]
    table = scales.reshape(-1, -(-k // steps[1]))
    offsets = None if zeros is None else zeros.astype(np.float32).reshape(table.shape)

    def spread(values: Array, part: slice) -> Array:
        mine = values[rows[part]]
        return mine if mine.shape[1] == 1 else np.repeat(mine, steps[1], axis=1)[:, :k]

    def block(part: slice) -> Array:
        values = numbers[part].astype(np.float32)
        if offsets is not None:
            values -= spread(offsets, part)
        values *= spread(table, part)
        return values

    return by_rows(info, block)
