"""One safetensors file: eight bytes of header length, a JSON header, and the tensors' bytes.

Format: https://github.com/huggingface/safetensors#format.  The checks are those of the reference implementation: the
tensors must cover the data without holes, overlaps or a tail.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmbuild.checkpoints.files import WeightFile, parse_json
from llmbuild.checkpoints.pieces import NO_CHECKS, Checks
from llmbuild.checkpoints.tensor import ITEM_SIZES, TensorInfo, is_plausible, spans
from llmbuild.errors import InputError

if TYPE_CHECKING:
    import numpy as np

MAX_HEADER_BYTES = 16 << 20
"""A tensor takes some 110 bytes, and files of the largest models have a few thousand.  The reference implementation allows
100 MB, of which Python would make gigabytes."""

DTYPES: Mapping[str, str] = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2": "float8_e5m2",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F8_E8M0": "float8_e8m0fnu",
    "U16": "uint16",
    "I16": "int16",
    "F16": "float16",
    "BF16": "bfloat16",
    "U32": "uint32",
    "I32": "int32",
    "F32": "float32",
    "U64": "uint64",
    "I64": "int64",
    "F64": "float64",
    "C64": "complex64",
}

BITS: Mapping[str, tuple[str, int]] = {
    "F4": ("float4_e2m1fn", 4),
    "F6_E2M3": ("float6_e2m3fn", 6),
    "F6_E3M2": ("float6_e3m2fn", 6),
}
"""Types of less than a byte, whose elements lie one after the other: name and bits.  No weight of a plain model has one."""


class SafetensorsFile:
    """An open safetensors file; `metadata` is what its writer says of it.  Opening reads the header only.

    Raises InputError when the file is not a valid one.
    """

    def __init__(self, path: Path, checks: Checks = NO_CHECKS) -> None:
        self._file = WeightFile(path, checks)
        try:
            self._read_header()
        except BaseException:
            self._file.close()
            raise

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """The tensors in the order of the header."""
        return self._tensors

    def read(self, name: str) -> np.ndarray:
        info = self._readable(name)
        return self._file.read_array(self._offsets[name], info.shape, info.dtype)

    def parts(self, name: str) -> Iterator[np.ndarray]:
        """See `Checkpoint.parts`."""
        info = self._readable(name)
        for start, count in spans(info.shape):
            offset = self._offsets[name] + start * ITEM_SIZES[info.dtype]
            yield self._file.read_array(offset, (count,), info.dtype)

    def close(self) -> None:
        self._file.close()

    def _readable(self, name: str) -> TensorInfo:
        info = self._tensors[name]
        if info.dtype not in ITEM_SIZES:
            raise InputError(
                f"tensor {name[:200]!r} cannot be read",
                where=str(self._file.path),
                why=f"it is {info.dtype}, of which several elements share a byte: its weights are quantized",
                fix="name the checkpoint that it was made from",
            )
        return info

    def _read_header(self) -> None:
        path, size = self._file.path, self._file.size
        if size < 8:
            raise self._file.truncated(8)
        length = int.from_bytes(self._file.read_bytes(0, 8), "little")
        if length > MAX_HEADER_BYTES or length < 2:
            raise InputError(
                "not a safetensors file",
                where=str(path),
                why=f"its header would have {length} bytes; 2 to {MAX_HEADER_BYTES} are possible",
                fix="fetch the file again, or name the format with source-format",
            )
        if 8 + length > size:
            raise self._file.truncated(8 + length)
        header = parse_json(self._file.read_bytes(8, length), "the safetensors header", path, unique=True)
        metadata = header.pop("__metadata__", None)
        self.metadata: Mapping[str, Any] = metadata if isinstance(metadata, dict) else {}
        start = 8 + length
        self._tensors: dict[str, TensorInfo] = {}
        self._offsets: dict[str, int] = {}
        spans: list[tuple[int, int, str]] = []
        for name, entry in header.items():
            info, begin, end = self._entry(name, entry)
            self._tensors[name] = info
            self._offsets[name] = start + begin
            spans.append((begin, end, name))
        self._check_layout(sorted(spans), size - start)

    def _entry(self, name: str, entry: Any) -> tuple[TensorInfo, int, int]:
        if not isinstance(entry, dict) or not {"dtype", "shape", "data_offsets"} <= entry.keys():
            raise self._bad(name, "its entry needs dtype, shape and data_offsets")
        code, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
        if not isinstance(code, str) or (code not in DTYPES and code not in BITS):
            raise InputError(
                f"tensor {name[:200]!r} has a type that is not known",
                where=str(self._file.path),
                why=f"dtype is {code!r:.100}; known are {', '.join([*DTYPES, *BITS])}",
                fix="name a checkpoint whose tensors have one of these types",
            )
        if not _are_sizes(shape):
            raise self._bad(name, f"shape {shape!r} is not a list of sizes")
        if not _are_sizes(offsets) or len(offsets) != 2:
            raise self._bad(name, f"data_offsets {offsets!r} are not two positions")
        if not is_plausible(tuple(shape), ITEM_SIZES[DTYPES[code]] if code in DTYPES else 1):
            raise self._bad(name, f"shape {shape} is absurd")
        if code in DTYPES:
            info = TensorInfo.of(name, tuple(shape), DTYPES[code])
        else:
            dtype, bits = BITS[code]
            nbytes, rest = divmod(math.prod(shape) * bits, 8)
            if rest:
                raise self._bad(name, f"shape {shape} of {code} is not a whole number of bytes")
            info = TensorInfo(name, tuple(shape), dtype, nbytes)
        begin, end = offsets
        if end - begin != info.nbytes:
            raise self._bad(name, f"shape {shape} of {code} needs {info.nbytes} bytes, data_offsets give {end - begin}")
        return info, begin, end

    def _check_layout(self, spans: list[tuple[int, int, str]], size: int) -> None:
        position = 0
        for begin, end, name in spans:
            if begin < position:
                raise self._bad(name, "its data overlaps that of another tensor")
            if begin > position:
                raise self._bad(name, f"{begin - position} bytes before its data belong to no tensor")
            if end > size:
                raise self._bad(name, f"its data ends at byte {end} of {size}: the file is truncated")
            position = end
        if position != size:
            raise InputError(
                "the safetensors file is inconsistent",
                where=str(self._file.path),
                why=f"{size - position} bytes after the last tensor belong to no tensor",
                fix="fetch the file again",
            )

    def _bad(self, name: str, why: str) -> InputError:
        shown = name if len(name) <= 200 else name[:200] + "…"
        return InputError(
            f"tensor {shown!r} is not valid", where=str(self._file.path), why=why, fix="fetch the file again"
        )


def _are_sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 1 << 63 for item in value)
