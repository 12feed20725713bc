"""Holding a weight directory against a library's metadata."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from llmbuild.errors import UsageError, VerifyError
from llmbuild.runtime.library import ParameterRecord
from llmbuild.runtime.weights import (
    StoredTensor,
    check_shards,
    parameter_differences,
    read_tensor_index,
    stored_tensors,
)


def write_directory(directory: Path, data: bytes = b"\x01\x02\x03\x04") -> dict[str, Any]:
    index = {
        "metadata": {},
        "records": [
            {
                "dataPath": "params_shard_0.bin",
                "nbytes": len(data),
                "md5sum": hashlib.md5(data).hexdigest(),
                "records": [{"name": "a", "shape": [2], "dtype": "float16"}],
            }
        ],
    }
    (directory / "params_shard_0.bin").write_bytes(data)
    (directory / "tensor-cache.json").write_text(json.dumps(index))
    return index


def test_a_sound_directory_passes(tmp_path: Path) -> None:
    write_directory(tmp_path)
    index = read_tensor_index(tmp_path)
    check_shards(tmp_path, index)
    assert stored_tensors(index) == (StoredTensor("a", (2,), "float16"),)


def test_the_older_index_name_is_read(tmp_path: Path) -> None:
    index = write_directory(tmp_path)
    (tmp_path / "tensor-cache.json").rename(tmp_path / "ndarray-cache.json")
    assert read_tensor_index(tmp_path) == index


def test_a_flipped_bit_is_found(tmp_path: Path) -> None:
    index = write_directory(tmp_path)
    (tmp_path / "params_shard_0.bin").write_bytes(b"\x01\x02\x03\x05")
    with pytest.raises(VerifyError, match="MD5"):
        check_shards(tmp_path, index)


def test_a_short_shard_is_found(tmp_path: Path) -> None:
    index = write_directory(tmp_path)
    (tmp_path / "params_shard_0.bin").write_bytes(b"\x01")
    with pytest.raises(VerifyError, match="1 bytes, the index says 4"):
        check_shards(tmp_path, index)


def test_a_missing_shard_and_a_missing_index_are_found(tmp_path: Path) -> None:
    index = write_directory(tmp_path)
    (tmp_path / "params_shard_0.bin").unlink()
    with pytest.raises(VerifyError, match="missing"):
        check_shards(tmp_path, index)
    (tmp_path / "tensor-cache.json").unlink()
    with pytest.raises(UsageError, match="no weights"):
        read_tensor_index(tmp_path)


def test_differences_name_the_parameter_and_both_sides() -> None:
    expected = [
        ParameterRecord("same", ("vocab_size", 4), "float16"),
        ParameterRecord("shape", (2, 4), "float16"),
        ParameterRecord("dtype", (4,), "float16"),
        ParameterRecord("gone", (4,), "float16"),
    ]
    stored = [
        StoredTensor("same", (100, 4), "float16"),
        StoredTensor("shape", (4, 2), "float16"),
        StoredTensor("dtype", (4,), "float32"),
        StoredTensor("extra", (4,), "float16"),
    ]
    assert parameter_differences(expected, stored, 100) == [
        "shape: the library needs shape [2, 4], stored is [4, 2]",
        "dtype: the library needs float16, stored is float32",
        "gone: the library needs it, the weights lack it",
        "extra: stored, but the library does not know it",
    ]
