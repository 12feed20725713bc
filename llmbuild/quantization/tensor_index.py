"""The tensor index of a weight directory: which tensor lies where in which shard, as MLC's runtimes read it.

The same content is written as `tensor-cache.json` (what current runtimes read) and as `ndarray-cache.json` (its older name).
Where float32 tensors are stored as bfloat16, `tensor-cache-b16.json` describes those bytes as the raw bfloat16 they are.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from llmbuild.errors import StoreError

INDEX_NAMES = ("tensor-cache.json", "ndarray-cache.json")
BF16_INDEX_NAME = "tensor-cache-b16.json"

Encoding = Literal["f32-to-bf16", "raw"]
"""The `format` of every record; "f32-to-bf16" changes the bytes of float32 tensors only."""


@dataclass(frozen=True, slots=True)
class TensorRecord:
    """One tensor in a shard.  `nbytes` and `offset` count the bytes as stored, `dtype` is the one the reader gives back."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    encoding: Encoding
    nbytes: int
    offset: int

    @property
    def rounded(self) -> bool:
        """Whether the stored bytes are bfloat16 for a float32 tensor."""
        return self.encoding == "f32-to-bf16" and self.dtype == "float32"

    def to_json(self, *, stored: bool = False) -> dict[str, Any]:
        """The record, with the keys in MLC's order; `stored` describes rounded bytes as bfloat16."""
        as_stored = stored and self.rounded
        return {
            "name": self.name,
            "shape": list(self.shape),
            "dtype": "bfloat16" if as_stored else self.dtype,
            "format": "raw" if as_stored else self.encoding,
            "nbytes": self.nbytes,
            "byteOffset": self.offset,
        }


@dataclass(frozen=True, slots=True)
class Shard:
    """One `params_shard_N.bin`."""

    path: str
    nbytes: int
    tensors: tuple[TensorRecord, ...]
    md5: str

    def to_json(self, *, stored: bool = False) -> dict[str, Any]:
        return {
            "dataPath": self.path,
            "format": "raw-shard",
            "nbytes": self.nbytes,
            "records": [tensor.to_json(stored=stored) for tensor in self.tensors],
            "md5sum": self.md5,
        }


@dataclass(frozen=True, slots=True)
class Totals:
    """The index's metadata: the number of tensors, their bytes before encoding, and the number of source parameters."""

    tensors: int
    nbytes: int
    parameters: int

    def to_json(self) -> dict[str, Any]:
        return {
            "ParamSize": self.tensors,
            "ParamBytes": float(self.nbytes),
            "BitsPerParam": self.nbytes * 8.0 / self.parameters if self.parameters else 0.0,
        }


def write_index(out: Path, shards: Sequence[Shard], totals: Totals) -> None:
    """Write the index under its names.  Raises StoreError when the directory cannot be written."""
    content = dict.fromkeys(INDEX_NAMES, False)
    if any(tensor.rounded for shard in shards for tensor in shard.tensors):
        content[BF16_INDEX_NAME] = True
    for name, stored in content.items():
        records = [shard.to_json(stored=stored) for shard in shards]
        text = json.dumps({"metadata": totals.to_json(), "records": records}, indent=4)
        try:
            (out / name).write_text(text, encoding="utf-8", newline="\n")
        except OSError as error:
            raise StoreError(f"cannot write {name}", where=str(out), why=error.strerror) from error
