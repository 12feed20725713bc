"""Holding a weight directory against a library's metadata."""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from llmbuild.conversation.prompt import render_prompt
from llmbuild.errors import InputError, LlmbuildError, UsageError, VerifyError
from llmbuild.runtime.chat_config import read_chat_config
from llmbuild.runtime.library import Library, ParameterRecord, checked_metadata
from llmbuild.runtime.tokenizer import load_tokenizer
from llmbuild.runtime.weights import (
    StoredTensor,
    check_shards,
    parameter_differences,
    read_tensor_index,
    stored_tensors,
)
from tests.helpers.replaced_parts import mutations


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


def test_any_value_in_any_place_of_an_index_is_taken_or_refused(tmp_path: Path) -> None:
    for index in mutations(write_directory(tmp_path)):
        (tmp_path / "tensor-cache.json").write_text(json.dumps(index))
        with contextlib.suppress(LlmbuildError):
            read = read_tensor_index(tmp_path)
            stored_tensors(read)
            check_shards(tmp_path, read)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "..", "", "a\0b", "x" * 300])
def test_an_index_names_files_beside_it(tmp_path: Path, name: str) -> None:
    index = write_directory(tmp_path)
    index["records"][0]["dataPath"] = name
    (tmp_path / "tensor-cache.json").write_text(json.dumps(index))
    with pytest.raises(VerifyError, match="the tensor index is damaged"):
        read_tensor_index(tmp_path)


METADATA: dict[str, Any] = {
    "params": [{"name": "a", "shape": [2, "vocab_size"], "dtype": "float16"}],
    "context_window_size": 64,
    "sliding_window_size": -1,
    "prefill_chunk_size": 32,
}


def test_any_metadata_of_a_library_are_taken_or_refused() -> None:
    assert checked_metadata(METADATA, Path("lib.so")) == METADATA
    for metadata in mutations(METADATA):
        try:
            checked = checked_metadata(metadata, Path("lib.so"))
        except VerifyError as error:
            assert "lib.so: the library's metadata has no" in str(error)
        else:
            assert len(Library(Path(), None, checked, None).parameters) == len(checked["params"])


CHAT: dict[str, Any] = {
    "vocab_size": 320,
    "active_vocab_size": 300,
    "eos_token_id": [2],
    "conv_template": {"name": "x", "roles": {"user": "U", "assistant": "A"}, "seps": ["\n"]},
}


def test_any_value_in_any_place_of_a_chat_config_is_taken_or_refused(tmp_path: Path) -> None:
    for config in [*mutations(CHAT), {"conv_template": {}}]:
        (tmp_path / "mlc-chat-config.json").write_text(json.dumps(config))
        with contextlib.suppress(LlmbuildError):
            assert render_prompt(read_chat_config(tmp_path)["conv_template"], [("user", "x"), ("assistant", None)])


def test_a_chat_config_that_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "mlc-chat-config.json").write_text("[" * 100_000)
    with pytest.raises(VerifyError, match="not JSON"):
        read_chat_config(tmp_path)
    (tmp_path / "mlc-chat-config.json").write_text("{}")
    with pytest.raises(VerifyError, match="configuration is damaged"):
        read_chat_config(tmp_path)


def test_a_tokenizer_that_the_library_cannot_read(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(InputError, match="the tokenizer cannot be read"):
        load_tokenizer(tmp_path)
