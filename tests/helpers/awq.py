"""A checkpoint in AWQ's format, written from its definition and sharing no code with llmbuild."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from tests.helpers.checkpoints import make_checkpoint

ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
"""Which of eight neighbouring columns stands in each nibble of a word, from the lowest on."""

WIDTH = {"intermediate_size": 384}
"""Whole groups of 128."""


def pack(numbers: np.ndarray) -> np.ndarray:
    """4-bit numbers [rows, columns] as int32 [rows, columns / 8]."""
    words = np.zeros((numbers.shape[0], numbers.shape[1] // 8), np.uint32)
    for nibble, column in enumerate(ORDER):
        words |= numbers[:, column::8].astype(np.uint32) << np.uint32(4 * nibble)
    return words.view(np.int32)


def quantize(weight: np.ndarray, group: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The three tensors of a weight [n, k], and the weight [n, k] that they stand for, in float32."""
    n, k = weight.shape
    groups = weight.astype(np.float32).reshape(n, k // group, group)
    low, high = groups.min(axis=2), groups.max(axis=2)
    scale = np.maximum((high - low) / 15, 1e-5).astype(np.float16)
    zero = np.clip(np.rint(-low / scale.astype(np.float32)), 0, 15)
    wide = scale.astype(np.float32)[:, :, None]
    numbers = np.clip(np.rint(groups / wide) + zero[:, :, None], 0, 15)
    stored = {
        "qweight": pack(numbers.reshape(n, k).T),
        "qzeros": pack(zero.T),
        "scales": np.ascontiguousarray(scale.T),
    }
    return stored, ((numbers - zero[:, :, None]) * wide).reshape(n, k)


def make_awq_checkpoint(directory: Path, plain: Path, variant: str, group: int = 128) -> None:
    """Write a tiny checkpoint in AWQ's format to `directory`, and to `plain` the same model with its weights unpacked."""
    make_checkpoint(directory, variant, dtype="float16", config=WIDTH)
    make_checkpoint(plain, variant, config=WIDTH)
    packed, unpacked = {}, {}
    for name, value in load_file(directory / "model.safetensors").items():
        if name.endswith("_proj.weight"):
            tensors, unpacked[name] = quantize(value, group)
            packed.update({f"{name.removesuffix('.weight')}.{key}": tensor for key, tensor in tensors.items()})
        else:
            packed[name], unpacked[name] = value, value.astype(np.float32)
    save_file(packed, directory / "model.safetensors")
    save_file(unpacked, plain / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((directory / "config.json").read_text())
    config["quantization_config"] = {
        "quant_method": "awq",
        "bits": 4,
        "group_size": group,
        "zero_point": True,
        "version": "gemm",
    }
    (directory / "config.json").write_text(json.dumps(config))
