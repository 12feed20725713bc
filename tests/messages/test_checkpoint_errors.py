"""Errors of checkpoints that no other test provokes: refused, with a message that tests/messages/golden shows."""

from __future__ import annotations

import errno
import io
import json
import os
import pickle
import struct
import sys
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmbuild import jsontext
from llmbuild.checkpoints import gguf, patterns, torch_machine, torch_pickle
from llmbuild.checkpoints.files import WeightFile, read_json
from llmbuild.checkpoints.gguf_tokenizer import make_tokenizer_files
from llmbuild.checkpoints.huggingface import missing_tensor
from llmbuild.checkpoints.lora import MergedCheckpoint, Pair
from llmbuild.checkpoints.tensor import TensorInfo
from llmbuild.checkpoints.torch_machine import run_pickle
from llmbuild.checkpoints.torch_pickle import TorchFile
from llmbuild.errors import LlmbuildError
from llmbuild.models.gguf import checkpoint as gguf_checkpoint
from llmbuild.models.open import open_checkpoint
from tests.helpers.checkpoints import cached_checkpoint
from tests.helpers.gguf_files import make_config, make_gguf

LLAMA = {
    "general.architecture": "llama",
    "llama.embedding_length": 64,
    "llama.attention.head_count": 4,
    "llama.feed_forward_length": 128,
    "llama.block_count": 1,
    "llama.context_length": 64,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
}
NEOX = {
    "general.architecture": "gptneox",
    "gptneox.embedding_length": 64,
    "gptneox.attention.head_count": 4,
    "gptneox.feed_forward_length": 128,
    "gptneox.block_count": 1,
    "gptneox.context_length": 64,
    "gptneox.attention.layer_norm_epsilon": 1e-5,
    "gptneox.use_parallel_residual": 7,
}
VOCABULARY = {"tokenizer.ggml.model": "llama", "tokenizer.ggml.tokens": ["a", "b"]}


def config(values: Mapping[str, Any]) -> Callable[[Path, pytest.MonkeyPatch], object]:
    """The configuration of a GGUF file with this metadata."""
    return lambda path, patch: make_config(values, {}, {}, path / "model.gguf")


def tokenizer(values: Mapping[str, Any]) -> Callable[[Path, pytest.MonkeyPatch], object]:
    return lambda path, patch: make_tokenizer_files(VOCABULARY | values, path / "model.gguf")


def scored(*tokens: str) -> dict[str, Any]:
    return {"tokenizer.ggml.tokens": list(tokens), "tokenizer.ggml.scores": [0.0] * len(tokens)}


def pickled(data: bytes) -> Callable[[Path, pytest.MonkeyPatch], object]:
    """A torch file's pickle; `c` names a global, `R` calls it."""
    return lambda path, patch: run_pickle(b"\x80\x02" + data + b".", path / "pytorch_model.bin")


def torch_file(entries: Mapping[str, bytes], most: int | None = None) -> Callable[[Path, pytest.MonkeyPatch], object]:
    def provoke(path: Path, patch: pytest.MonkeyPatch) -> None:
        with zipfile.ZipFile(path / "model.bin", "w") as archive:
            for name, data in entries.items():
                archive.writestr(name, data)
        if most is not None:
            patch.setattr(torch_pickle, "MAX_PICKLE_BYTES", most)
        TorchFile(path / "model.bin")

    return provoke


def unreadable(path: Path, patch: pytest.MonkeyPatch) -> None:
    (path / "x.bin").write_bytes(b"1234")
    file = WeightFile(path / "x.bin")

    def preadv(*_: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    patch.setattr(os, "preadv", preadv)
    file.read_bytes(0, 4)


def no_memory(path: Path, patch: pytest.MonkeyPatch) -> None:
    (path / "x.bin").write_bytes(b"1234")

    def empty(*_: object) -> None:
        raise MemoryError

    patch.setattr(np, "empty", empty)
    WeightFile(path / "x.bin").read_array(0, (1 << 20, 1 << 20), "float32")


def large_json(path: Path, patch: pytest.MonkeyPatch) -> None:
    with (path / "config.json").open("wb") as file:
        file.truncate(jsontext.MOST_BYTES + 1)
    read_json(path / "config.json", "config.json")


def long_header(path: Path, patch: pytest.MonkeyPatch) -> None:
    # The first mebibyte is read at once; a name that reaches beyond it is asked for.
    patch.setattr(gguf, "MAX_HEADER_BYTES", 1 << 20)
    with (path / "model.gguf").open("wb") as file:
        file.write(b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 2 << 20))
        file.truncate(4 << 20)
    gguf.GgufFile(path / "model.gguf")


def large_factors(path: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(gguf_checkpoint, "MAX_FACTORS_BYTES", 1)
    open_checkpoint(make_gguf(path / "model.gguf", "llama3"))


def other_format(path: Path, patch: pytest.MonkeyPatch) -> None:
    (path / "config.json").write_text('{"model_type": "llama"}')
    (path / "pytorch_model.bin").write_bytes(b"")
    open_checkpoint(path, "huggingface-safetensor")


def unknown_tensor(path: Path, patch: pytest.MonkeyPatch) -> None:
    raise missing_tensor("q", {"model.norm.weight": TensorInfo.of("model.norm.weight", (4,), "float32")}, path)


def adapter(
    settings: Mapping[str, Any], tensors: Mapping[str, np.ndarray], dtype: str = "float32"
) -> Callable[[Path, pytest.MonkeyPatch], object]:
    """An adapter for the tiny llama, whose own tensors count as `dtype`."""

    def provoke(path: Path, patch: pytest.MonkeyPatch) -> None:
        from safetensors.numpy import save_file

        (path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 2} | settings))
        save_file(dict(tensors), path / "adapter_model.safetensors")
        base = open_checkpoint(cached_checkpoint("llama-gqa"))
        if dtype != "float32":
            kept = {name: TensorInfo.of(name, info.shape, dtype) for name, info in base.tensors.items()}
            patch.setattr(type(base), "tensors", kept)
        MergedCheckpoint(base, path, Pair("model.embed_tokens.weight", "lm_head.weight", tied=False))

    return provoke


def factors() -> dict[str, np.ndarray]:
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_{}.weight"
    with open_checkpoint(cached_checkpoint("llama-gqa")) as base:
        rows, columns = base.tensors["model.layers.0.self_attn.q_proj.weight"].shape
    return {
        name.format("A"): np.zeros((2, columns), np.float32),
        name.format("B"): np.zeros((rows, 2), np.float32),
    }


def twice(path: Path, patch: pytest.MonkeyPatch) -> None:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("m/data.pkl", b"1")
        archive.writestr("m/data.pkk", b"2")
    (path / "model.bin").write_bytes(data.getvalue().replace(b"data.pkk", b"data.pkl"))
    TorchFile(path / "model.bin")


def no_local_header(path: Path, patch: pytest.MonkeyPatch) -> None:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("m/first", b"1")
        archive.writestr("m/data.pkl", pickle.dumps({}))
        second = archive.getinfo("m/data.pkl").header_offset
    content = bytearray(data.getvalue())
    content[second : second + 2] = b"??"
    (path / "model.bin").write_bytes(content)
    TorchFile(path / "model.bin")


def an_adapter_of_integers(path: Path, patch: pytest.MonkeyPatch) -> None:
    adapter({}, factors(), "int8")(path, patch)


def a_header_without_end(path: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(gguf, "MAX_HEADER_BYTES", 40)
    make_gguf(path / "model.gguf", "llama")
    gguf.GgufFile(path / "model.gguf")


def a_long_pickle(path: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(torch_machine, "MAX_OPERATIONS", 3)
    pickled(b"NNNNN")(path, patch)


def no_process(path: Path, patch: pytest.MonkeyPatch) -> None:
    def run(*_: object, **__: object) -> None:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    patch.setattr(patterns.subprocess, "run", run)
    patch.setattr(sys, "executable", "/python/bin/python")
    patterns._match_apart({"rank_pattern": ["a"]}, {"rank_pattern": ["a"]}, ["a"])


CASES: dict[str, Callable[[Path, pytest.MonkeyPatch], object]] = {
    "a weight file that cannot be read": unreadable,
    "too little memory": no_memory,
    "a large config": large_json,
    "a config that is a directory": lambda path, patch: read_json(path, "config.json"),
    "a long header": long_header,
    "another format": other_format,
    "an unknown tensor": unknown_tensor,
    "values of another size": config(LLAMA | {"llama.attention.value_length": 8}),
    "a partial rotation": config(LLAMA | {"llama.rope.dimension_count": 8}),
    "a mixture of experts": config(LLAMA | {"llama.expert_count": 8}),
    "frequencies without end": large_factors,
    "a token without end": tokenizer(scored("a", "a" * 513)),
    "tokens without end": tokenizer(scored(*(f"{number:0512}" for number in range(17_000)))),
    "tokens of every length": tokenizer(scored(*("a" * length for length in range(1, 200)))),
    "an epsilon that is none": config(LLAMA | {"llama.attention.layer_norm_rms_epsilon": -1.0}),
    "a rope scaling that is no name": config(LLAMA | {"llama.rope.scaling.type": 7}),
    "a residual that is no flag": config(NEOX),
    "heads that do not fit": config(LLAMA | {"llama.attention.head_count": 70}),
    "a negative count": config(LLAMA | {"llama.block_count": -1}),
    "no local header": no_local_header,
    "types that are too few": tokenizer({"tokenizer.ggml.token_type": [1]}),
    "scores that are too few": tokenizer({"tokenizer.ggml.scores": [1.0]}),
    "scores that are no numbers": tokenizer({"tokenizer.ggml.scores": [1.0, "x"]}),
    "append to no list": pickled(b"}Na"),
    "items of no dictionary": pickled(b"]NNs"),
    "a global that is no text": pickled(b"NN\x93"),
    "a tensor of nothing": pickled(b"ctorch._utils\n_rebuild_tensor_v2\n(NK\x00))tR"),
    "a third tensor of nothing": pickled(b"ctorch._utils\n_rebuild_tensor_v3\n(NK\x00))NNNtR"),
    "a parameter of nothing": pickled(b"ctorch._utils\n_rebuild_parameter\n(NtR"),
    "a size of nothing": pickled(b"ctorch\nSize\n(NtR"),
    "a big-endian file": torch_file({"m/data.pkl": pickle.dumps({}), "m/byteorder": b"big"}),
    "a large pickle": torch_file({"m/data.pkl": pickle.dumps({}), "m/byteorder": b"little"}, most=1),
    "an adapter that changes nothing": adapter({}, {}),
    "an adapter of another kind": adapter({"peft_type": "IA3"}, {}),
    "an adapter that starts from the base": adapter({"init_lora_weights": "pissa"}, {}),
    "an adapter of integers": an_adapter_of_integers,
    "a name twice": twice,
    "a header without end": a_header_without_end,
    "a long pickle": a_long_pickle,
    "no process for patterns": no_process,
}


@pytest.mark.parametrize("name", CASES)
def test_it_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LlmbuildError):
        CASES[name](tmp_path, monkeypatch)
