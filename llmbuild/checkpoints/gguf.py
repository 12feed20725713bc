"""One GGUF file: metadata and tensors, read lazily.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3, little-endian.  The header is parsed here
and every count is checked against the file's size before anything is allocated, which the `gguf` package's own reader does
not do; that package dequantizes the blocks.
"""

from __future__ import annotations

import math
import struct
import sys
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmbuild.checkpoints.files import WeightFile
from llmbuild.checkpoints.pieces import NO_CHECKS, Checks
from llmbuild.checkpoints.tensor import TensorInfo, is_plausible, spans
from llmbuild.errors import InputError

if TYPE_CHECKING:
    import numpy as np

MAX_HEADER_BYTES = 64 << 20
"""A vocabulary of 262,000 tokens with its merges takes some 16 MB."""
MAX_ARRAY = 1 << 22
"""Elements of one metadata array; the largest vocabularies have less than a million."""
MAX_PAIRS = 1 << 14
MAX_TENSORS = 1 << 16
"""A tensor's entry takes Python some 500 bytes; the models of the supported architectures have up to a thousand tensors."""
MAX_NAME_BYTES = 1024
MAX_DIMENSIONS = 4
CHUNK_BYTES = 1 << 20
"""Quantized bytes that are dequantized at a time."""


@dataclass(frozen=True, slots=True)
class BlockType:
    """A way to store numbers: `elements` of a row in `nbytes`.  `dtype` is that of the array read."""

    name: str
    elements: int
    nbytes: int
    dtype: str = "float32"


BLOCK_TYPES: Mapping[int, BlockType] = {
    0: BlockType("F32", 1, 4),
    1: BlockType("F16", 1, 2, "float16"),
    2: BlockType("Q4_0", 32, 18),
    3: BlockType("Q4_1", 32, 20),
    6: BlockType("Q5_0", 32, 22),
    7: BlockType("Q5_1", 32, 24),
    8: BlockType("Q8_0", 32, 34),
    10: BlockType("Q2_K", 256, 84),
    11: BlockType("Q3_K", 256, 110),
    12: BlockType("Q4_K", 256, 144),
    13: BlockType("Q5_K", 256, 176),
    14: BlockType("Q6_K", 256, 210),
    16: BlockType("IQ2_XXS", 256, 66),
    17: BlockType("IQ2_XS", 256, 74),
    18: BlockType("IQ3_XXS", 256, 98),
    19: BlockType("IQ1_S", 256, 50),
    20: BlockType("IQ4_NL", 32, 18),
    21: BlockType("IQ3_S", 256, 110),
    22: BlockType("IQ2_S", 256, 82),
    23: BlockType("IQ4_XS", 256, 136),
    28: BlockType("F64", 1, 8, "float64"),
    29: BlockType("IQ1_M", 256, 56),
    30: BlockType("BF16", 1, 2, "bfloat16"),
    34: BlockType("TQ1_0", 256, 54),
    35: BlockType("TQ2_0", 256, 66),
    39: BlockType("MXFP4", 32, 17),
    40: BlockType("NVFP4", 64, 36),
}
"""By the number that ggml gives each type: those that the `gguf` package dequantizes."""

_SCALARS: Mapping[int, str] = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
_STRING, _ARRAY = 8, 9


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """Where a tensor is: `shape` in NumPy's order, `offset` from the start of the file."""

    shape: tuple[int, ...]
    type: BlockType
    offset: int
    nbytes: int


class GgufFile:
    """An open GGUF file.  Opening reads the header only.  Raises InputError when it is not a valid one."""

    def __init__(self, path: Path, checks: Checks = NO_CHECKS) -> None:
        self.path = path
        self._file = WeightFile(path, checks)
        try:
            self._parse()
        except BaseException:
            self._file.close()
            raise

    @property
    def metadata(self) -> Mapping[str, Any]:
        """The key-value pairs: numbers, booleans, strings, lists of strings, and arrays of numbers (booleans are 0 and 1)."""
        return self._metadata

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """The tensors by GGUF's names, in the file's order."""
        return self._tensors

    @property
    def block_types(self) -> tuple[str, ...]:
        """The types of tensors that are stored in blocks of numbers with a scale, by their names, sorted."""
        return tuple(sorted({tensor.type.name for tensor in self._places.values() if tensor.type.elements > 1}))

    def read(self, name: str) -> np.ndarray:
        """One tensor: float64, float32, float16 or bfloat16 as stored, block types dequantized to float32."""
        tensor = self._places[name]
        return self._elements(tensor, 0, math.prod(tensor.shape)).reshape(tensor.shape)

    def parts(self, name: str) -> Iterator[np.ndarray]:
        """See `Checkpoint.parts`."""
        tensor = self._places[name]
        return (self._elements(tensor, start, count) for start, count in spans(tensor.shape))

    def close(self) -> None:
        self._file.close()

    def _elements(self, tensor: GgufTensor, first: int, count: int) -> np.ndarray:
        """`count` elements from the `first` on; both are whole rows."""
        import numpy as np

        offset = tensor.offset + first // tensor.type.elements * tensor.type.nbytes
        if tensor.type.elements == 1:
            return self._file.read_array(offset, (count,), tensor.type.dtype)
        from gguf.constants import GGMLQuantizationType
        from gguf.quants import dequantize

        kind = GGMLQuantizationType[tensor.type.name]
        row = tensor.shape[-1] // tensor.type.elements * tensor.type.nbytes
        rows = count // tensor.shape[-1]
        result = self._file.new_array((rows, tensor.shape[-1]), "float32")
        step = max(1, CHUNK_BYTES // max(row, 1))
        # A scale of infinity times zero is a NaN in the result, which is for the consumer to judge, not a warning.
        with np.errstate(all="ignore"):
            for start in range(0, rows, step):
                raw = self._file.read_array(offset + start * row, (min(step, rows - start), row), "uint8")
                result[start : start + step] = dequantize(raw, kind)
        return result.reshape(-1)

    def _parse(self) -> None:
        cursor = _Cursor(self._file)
        if cursor.take(4) != b"GGUF":
            raise self._bad("not a GGUF file", "it does not begin with the letters GGUF")
        version = cursor.number("I")
        if version not in (2, 3):
            big = version & 0xFFFF == 0
            raise self._bad(
                "the GGUF file is big-endian" if big else f"GGUF version {version} is not supported",
                "little-endian versions 2 and 3 are",
            )
        tensor_count, pair_count = cursor.number("Q"), cursor.number("Q")
        # A tensor takes at least 24 bytes of header, a pair at least 13.
        too_many = tensor_count > MAX_TENSORS or pair_count > MAX_PAIRS
        if too_many or tensor_count * 24 + pair_count * 13 > self._file.size:
            raise self._bad(
                "the GGUF file's counts are absurd",
                f"it has {self._file.size} bytes and would have {tensor_count} tensors and {pair_count} metadata pairs",
            )
        self._metadata: dict[str, Any] = {}
        for _ in range(pair_count):
            key = cursor.name()
            if key in self._metadata:
                raise self._bad("the GGUF file is inconsistent", f"metadata key {key!r} comes twice")
            self._metadata[key] = self._value(cursor, key, cursor.number("I"))
        self._tensors: dict[str, TensorInfo] = {}
        self._places: dict[str, GgufTensor] = {}
        for _ in range(tensor_count):
            self._add_tensor(cursor)
        self._place_tensors(cursor.position)

    def _value(self, cursor: _Cursor, key: str, kind: int) -> Any:
        if kind == _STRING:
            return cursor.string()
        if kind in _SCALARS:
            return cursor.number(_SCALARS[kind])
        if kind != _ARRAY:
            raise self._bad("the GGUF file is inconsistent", f"metadata key {key!r} has unknown type {kind}")
        item, count = cursor.number("I"), cursor.number("Q")
        if count > MAX_ARRAY:
            raise self._bad("the GGUF file's counts are absurd", f"metadata key {key!r} has {count} elements")
        if item == _STRING:
            return cursor.strings(count)
        if item not in _SCALARS:
            raise self._bad(
                "the GGUF file cannot be read", f"metadata key {key!r} is a list of elements of type {item}"
            )
        return cursor.numbers(_SCALARS[item], count)

    def _add_tensor(self, cursor: _Cursor) -> None:
        name, rank = cursor.name(), cursor.number("I")
        if name in self._places:
            raise self._bad("the GGUF file is inconsistent", f"tensor {name!r} comes twice")
        if not 1 <= rank <= MAX_DIMENSIONS:
            raise self._bad(
                f"tensor {name!r} is not valid", f"it has {rank} dimensions; 1 to {MAX_DIMENSIONS} are possible"
            )
        shape = tuple(reversed(cursor.numbers("Q", rank)))
        number, offset = cursor.number("I"), cursor.number("Q")
        kind = BLOCK_TYPES.get(number)
        if kind is None:
            known = ", ".join(each.name for each in BLOCK_TYPES.values())
            raise self._bad(
                f"tensor {name!r} has type {_type_name(number)}, which is not supported",
                f"supported are {known}",
                "use a GGUF file with one of these quantizations, or better the original weights",
            )
        if not is_plausible(shape, 8) or 0 in shape:
            raise self._bad(f"tensor {name!r} is not valid", f"its shape {list(shape)} is absurd")
        if shape[-1] % kind.elements:
            raise self._bad(
                f"tensor {name!r} is not valid",
                f"rows of {shape[-1]} are not whole blocks of {kind.elements} ({kind.name})",
            )
        self._places[name] = GgufTensor(shape, kind, offset, math.prod(shape) // kind.elements * kind.nbytes)
        self._tensors[name] = TensorInfo.of(name, shape, kind.dtype)

    def _place_tensors(self, header_end: int) -> None:
        alignment = self._metadata.get("general.alignment", 32)
        if type(alignment) is not int or not 1 <= alignment <= 1 << 16 or alignment & (alignment - 1):
            raise self._bad("the GGUF file is inconsistent", f"general.alignment is {alignment!r}")
        start = -(-header_end // alignment) * alignment
        position = 0
        for name, tensor in sorted(self._places.items(), key=lambda item: item[1].offset):
            if tensor.offset % alignment or tensor.offset < position:
                raise self._bad(
                    f"tensor {name!r} is not valid", f"offset {tensor.offset} is unaligned or overlaps another"
                )
            position = tensor.offset + tensor.nbytes
            if start + position > self._file.size:
                raise self._file.truncated(start + position)
        self._places = {
            name: GgufTensor(tensor.shape, tensor.type, start + tensor.offset, tensor.nbytes)
            for name, tensor in self._places.items()
        }

    def _bad(self, what: str, why: str, fix: str = "fetch the file again") -> InputError:
        return InputError(what, where=str(self.path), why=why, fix=fix)


class _Cursor:
    """A position in the header, read in pieces of a mebibyte."""

    def __init__(self, file: WeightFile) -> None:
        self._file = file
        self._buffer = b""
        self._start = 0
        self._at = 0

    @property
    def position(self) -> int:
        return self._start + self._at

    def require(self, count: int) -> None:
        """Raise InputError unless `count` more bytes are in the file and within a header's limit."""
        if self.position + count > self._file.size:
            raise self._file.truncated(self.position + count)
        if self.position + count > MAX_HEADER_BYTES:
            raise InputError(
                "the GGUF file's header is absurd",
                where=str(self._file.path),
                why=f"it would have over {MAX_HEADER_BYTES} bytes",
                fix="fetch the file again",
            )

    def take(self, count: int) -> bytes:
        if self._at + count > len(self._buffer):
            self.require(count)
            self._start, self._at = self.position, 0
            wanted = max(count, min(1 << 20, self._file.size - self._start))
            self._buffer = self._file.read_bytes(self._start, wanted)
        data = self._buffer[self._at : self._at + count]
        self._at += count
        return data

    def number(self, code: str) -> Any:
        return struct.unpack("<" + code, self.take(struct.calcsize("<" + code)))[0]

    def numbers(self, code: str, count: int) -> array[Any]:
        """An array takes the bytes of the file; a list of Python's numbers would take up to 40 for each."""
        result = array("B" if code == "?" else code)
        size = result.itemsize * count
        self.require(size)
        result.frombytes(self.take(size))
        if sys.byteorder == "big":
            result.byteswap()
        return result

    def name(self) -> str:
        """A string that names something."""
        length = int.from_bytes(self.take(8), "little")
        if length > MAX_NAME_BYTES:
            raise InputError(
                f"the GGUF file has a name of {length} bytes",
                where=str(self._file.path),
                why=f"{MAX_NAME_BYTES} are the most",
                fix="fetch the file again",
            )
        return self._text(length)

    def string(self) -> str:
        return self._text(int.from_bytes(self.take(8), "little"))

    def strings(self, count: int) -> list[str]:
        """Strings that follow one another: a vocabulary has some hundred thousand, so those within a piece are cut out of it."""
        self.require(count * 8)
        found: list[str] = []
        while len(found) < count:
            buffer, at = self._buffer, self._at
            try:
                while len(found) < count and at + 8 <= len(buffer):
                    first = at + 8
                    end = first + int.from_bytes(buffer[at:first], "little")
                    if end > len(buffer):
                        break
                    found.append(buffer[first:end].decode())
                    at = end
            except UnicodeDecodeError as error:
                raise self._no_text(error) from error
            self._at = at
            if len(found) < count:
                found.append(self.string())
        return found

    def _text(self, length: int) -> str:
        try:
            return self.take(length).decode("utf-8")
        except UnicodeDecodeError as error:
            raise self._no_text(error) from error

    def _no_text(self, error: UnicodeDecodeError) -> InputError:
        return InputError("the GGUF file has text that is not UTF-8", where=str(self._file.path), why=str(error)[:200])


def _type_name(number: int) -> str:
    from gguf.constants import GGMLQuantizationType

    try:
        return str(GGMLQuantizationType(number).name)
    except ValueError:
        return str(number)
