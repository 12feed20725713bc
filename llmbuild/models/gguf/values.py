"""The metadata of a GGUF file under its architecture's prefix, with types checked, and the shapes of its tensors."""

from __future__ import annotations

import math
import reprlib
import struct
from array import array
from collections.abc import Mapping
from pathlib import Path
from typing import Any, overload

from llmbuild.errors import InputError, Where

MOST_LAYERS = 4096
_LARGEST = 3.4e38
"""No float32 is larger."""


class GgufValues:
    """`asked` has the keys that were looked at.  What reads a value raises InputError where it is none that is possible."""

    def __init__(
        self, architecture: str, metadata: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], path: Path
    ) -> None:
        self.architecture = architecture
        self.path = path
        self.asked: set[str] = set()
        self._metadata = metadata
        self._shapes = shapes

    def get(self, key: str, default: Any) -> Any:
        """The value as the file has it."""
        self.asked.add(key)
        return self._metadata.get(f"{self.architecture}.{key}", default)

    def says(self, key: str) -> bool:
        """Whether the file has the key."""
        return self.get(key, None) is not None

    def has(self, name: str) -> bool:
        """Whether the first layer has a tensor."""
        return f"blk.0.{name}" in self._shapes

    @overload
    def integer(self, key: str) -> int: ...
    @overload
    def integer(self, key: str, default: int) -> int: ...
    def integer(self, key: str, default: int | None = None) -> int:
        """A count: positive when it must be there."""
        value = self.get(key, default)
        if value is None:
            raise self.wrong(key, "it is missing")
        if isinstance(value, array) and value and all(item == value[0] for item in value):
            value = value[0]
        if (
            isinstance(value, bool)
            or not isinstance(value, int)
            or value < (1 if default is None else 0)
            or value >= 1 << 31
        ):
            raise self.wrong(key, f"{reprlib.repr(value)} is not a possible count")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A number above 0."""
        value = self.get(key, default)
        if value is None:
            raise self.wrong(key, "it is missing")
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            raise self.wrong(key, f"{reprlib.repr(value)} is not a positive number")
        return float(shortest(value))

    def optional_number(self, key: str) -> float | None:
        """A number above 0, or None where there is none; 0 is llama.cpp's "not set"."""
        return None if self.get(key, None) in (None, 0) else self.number(key)

    def flag(self, key: str, default: bool) -> bool:
        """True or false."""
        value = self.get(key, default)
        if not isinstance(value, bool):
            raise self.wrong(key, f"{reprlib.repr(value)} is not true or false")
        return value

    @property
    def hidden(self) -> int:
        """The hidden size."""
        return self.integer("embedding_length")

    @property
    def heads(self) -> int:
        """The number of attention heads."""
        heads = self.integer("attention.head_count")
        if heads > self.hidden:
            raise self.wrong("attention.head_count", f"a hidden size of {self.hidden} cannot have {heads} heads")
        return heads

    @property
    def key_value_heads(self) -> int:
        """The number of heads of keys and of values."""
        groups = self.integer("attention.head_count_kv", self.heads)
        if groups == 0 or self.heads % groups:
            raise self.wrong("attention.head_count_kv", f"{self.heads} attention heads cannot share {groups}")
        return groups

    @property
    def windowed(self) -> bool:
        """Whether the file names a window of attention."""
        return self.integer("attention.sliding_window", 0) > 0

    @property
    def layers(self) -> int:
        """The number of layers."""
        layers = self.integer("block_count")
        if layers > MOST_LAYERS:
            raise self.wrong("block_count", f"{layers} is not a possible count")
        return layers

    @property
    def head_size(self) -> int:
        """The size of a head, which the tensors of the first layer have to fit."""
        size = self.integer("attention.key_length", self.hidden // self.heads)
        if self.integer("attention.value_length", size) != size:
            raise self.wrong("attention.value_length", "keys and values of different size are not supported")
        for name, heads in (("attn_q", self.heads), ("attn_qkv", self.heads + 2 * self.key_value_heads)):
            shape = self._shapes.get(f"blk.0.{name}.weight")
            if shape is not None and shape[0] != heads * size:
                raise undivided(f"blk.0.{name}.weight", shape[0], self.path)
        return size

    def wrong(self, key: str, why: str) -> InputError:
        return InputError(
            "the GGUF file's metadata cannot be used",
            where=Where(str(self.path), key=f"{self.architecture}.{key}"),
            why=why,
            fix="use another GGUF file or the original weights of the model",
        )


def undivided(name: str, rows: int, path: Path) -> InputError:
    """What is said of a tensor whose rows are not those of whole heads."""
    return InputError(f"tensor {name!r} has {rows} rows, which the attention heads do not divide", where=str(path))


def shortest(value: float) -> float:
    """A float32 as the shortest decimal that means it: 9.999999747378752e-06 was written as 1e-05."""
    if isinstance(value, int) or not math.isfinite(value) or abs(value) > _LARGEST:
        return value
    for digits in range(1, 10):
        text = float(f"{value:.{digits}g}")
        if struct.pack("<f", text) == struct.pack("<f", value):
            return text
    return value
