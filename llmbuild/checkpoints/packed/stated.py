"""What a configuration says of quantized weights, with the names of all methods, and errors that name the place of a value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmbuild.errors import InputError, Where
from llmbuild.printable import either

READ: Mapping[str, str] = {
    "auto-round": "AutoRound",
    "awq": "AWQ",
    "compressed-tensors": "compressed-tensors",
    "fbgemm_fp8": "FBGEMM (FP8)",
    "fp8": "FP8",
    "gptq": "GPTQ",
    "modelopt": "ModelOpt",
    "mxfp8": "MXFP8",
}
"""The methods that are read, by the name that quant_method has, with the name that they are known by."""

NOT_READ: Mapping[str, str] = {
    "aqlm": "AQLM",
    "bitnet": "BitNet",
    "bitsandbytes": "bitsandbytes",
    "eetq": "EETQ",
    "exl2": "EXL2",
    "exl3": "EXL3",
    "fouroversix": "Four Over Six (NVFP4)",
    "fp_quant": "FP-Quant",
    "gemma": "the method of Gemma",
    "gguf": "GGUF",
    "higgs": "HIGGS",
    "hqq": "HQQ",
    "marlin": "Marlin",
    "metal": "Metal",
    "mlx": "MLX",
    "mxfp4": "MXFP4",
    "nvfp4": "NVFP4",
    "paroquant": "ParoQuant",
    "qqq": "QQQ",
    "quanto": "Quanto",
    "quark": "Quark",
    "sinq": "SINQ",
    "spqr": "SpQR",
    "torchao": "torchao",
    "vptq": "VPTQ",
}
"""Methods that are known by name only.  Those of transformers are held against its own list by a test."""

FIX = "name the checkpoint that it was made from as the source"


@dataclass(frozen=True, slots=True)
class Quantization:
    """What a file says of quantized weights: `method` as quant_method has it, `values` the object that `key` of it holds."""

    method: str
    values: Mapping[str, Any]
    file: str
    key: str | None

    @property
    def label(self) -> str:
        """The name that the method is known by."""
        name = READ.get(self.method) or NOT_READ.get(self.method) or f"an unknown method {self.method!r}"
        algorithm = self.values.get("quant_algo")
        return f"{name} ({algorithm})" if isinstance(algorithm, str) else name

    def where(self, key: str | None = None) -> Where:
        """The place of a key, for messages."""
        return Where(self.file, key=".".join(part for part in (self.key, key) if part) or None)

    def refused(self, key: str, why: str) -> InputError:
        """The error for a form of a method that is read in other forms."""
        what = f"the weights are quantized by {self.label} in a form that is not read"
        return InputError(what, where=self.where(key), why=why, fix=FIX)

    def integer(self, key: str, default: int | None, allowed: Sequence[int] | None = None) -> int:
        """A whole number, one of `allowed` if given, else one above 0 or the -1 that stands for a whole row."""
        value = self.values.get(key, default)
        known = type(value) is int and (value in allowed if allowed else is_size(value) or value == -1)
        if not known:
            wanted = either([str(number) for number in allowed]) if allowed else "a number above 0, or -1"
            raise self.refused(key, f"{key} is {shown(value)}, and must be {wanted}")
        assert isinstance(value, int)
        return value

    def choice(self, keys: Sequence[str], default: str, allowed: Sequence[str]) -> str:
        """The value of the first of several keys that is set, in small letters, which must be one of `allowed`."""
        key = next((key for key in keys if self.values.get(key) is not None), keys[0])
        value = self.values.get(key)
        value = default if value is None else value.lower() if isinstance(value, str) else value
        if value not in allowed:
            raise self.refused(key, f"{key} is {shown(value)}, and must be {either(allowed)}")
        return str(value)


def is_size(value: object) -> bool:
    """Whether a value of a file can be the size of a dimension."""
    return type(value) is int and 0 < value < 1 << 31


def shown(value: object) -> str:
    """A value of a file, for a message."""
    return "missing" if value is None else f"{value!r:.80}"
