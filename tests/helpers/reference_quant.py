"""The formats in plain NumPy, written from their definition and sharing no code with llmbuild: a group quantizer, a
dequantizer, and a reader of a weight directory that checks everything the index promises."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

DTYPES: dict[str, Any] = {
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
    "float32": np.float32,
    "uint32": np.uint32,
}


def quantize(weight: np.ndarray, bits: int, group: int, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """(q_weight uint32 [N, words], q_scale [N, groups]) of `weight` [N, K]; every operation in the dtype's arithmetic."""
    kind = DTYPES[dtype]
    n, k = weight.shape
    groups = -(-k // group)
    max_int = 2 ** (bits - 1) - 1
    padded = np.zeros((n, groups * group), kind)
    padded[:, :k] = weight.astype(kind)
    blocks = padded.reshape(n, groups, group)
    scale = (np.abs(blocks).max(axis=2) / kind(max_int)).astype(kind)
    safe = np.where(scale == 0, kind(1), scale).astype(kind)
    scaled = (blocks / safe[:, :, None]).astype(kind)
    scaled[scale == 0] = 0
    shifted = (scaled + kind(max_int)).astype(kind)
    q = np.clip(np.rint(shifted.astype(np.float64)), 0, 2 * max_int).astype(np.uint32).reshape(n, -1)
    q[:, k:] = 0
    per_word = 32 // bits
    words = np.zeros((n, groups * group // per_word), np.uint32)
    for i in range(per_word):
        words |= q[:, i::per_word] << np.uint32(bits * i)
    return words, scale


def dequantize(q_weight: np.ndarray, q_scale: np.ndarray, bits: int, group: int, k: int) -> np.ndarray:
    """The weight [N, k] in the scale's dtype: (q - max_int) * scale."""
    kind = q_scale.dtype
    per_word = 32 // bits
    max_int = 2 ** (bits - 1) - 1
    n, words = q_weight.shape
    q = np.zeros((n, words * per_word), np.int64)
    for i in range(per_word):
        q[:, i::per_word] = (q_weight >> np.uint32(bits * i)) & np.uint32((1 << bits) - 1)
    centred = (q - max_int).astype(np.float32).astype(kind)
    return (centred * np.repeat(q_scale, group, axis=1)).astype(kind)[:, :k]


def read_weights(directory: Path, index: str = "tensor-cache.json") -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """(name -> array in file order, the index's metadata); asserts sizes, offsets and MD5 sums.

    float32 stored as bfloat16 comes back as float32."""
    content = json.loads((directory / index).read_text())
    tensors: dict[str, np.ndarray] = {}
    for number, shard in enumerate(content["records"]):
        assert shard["dataPath"] == f"params_shard_{number}.bin"
        assert shard["format"] == "raw-shard"
        data = (directory / shard["dataPath"]).read_bytes()
        assert len(data) == shard["nbytes"]
        assert hashlib.md5(data).hexdigest() == shard["md5sum"]
        end = 0
        for record in shard["records"]:
            assert record["byteOffset"] == end
            end += record["nbytes"]
            chunk = data[record["byteOffset"] : end]
            kind = DTYPES[record["dtype"]]
            if record["format"] == "f32-to-bf16" and record["dtype"] == "float32":
                value = np.frombuffer(chunk, ml_dtypes.bfloat16).astype(np.float32)
            else:
                value = np.frombuffer(chunk, kind)
            assert record["name"] not in tensors
            tensors[record["name"]] = value.reshape(record["shape"])
        assert end == len(data)
    return tensors, content["metadata"]
