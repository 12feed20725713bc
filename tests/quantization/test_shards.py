"""Shards and indexes against TVM's own writer, byte for byte."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmbuild.errors import StoreError
from llmbuild.quantization.shards import ShardWriter, encode_float32
from llmbuild.quantization.tensor_index import Totals, write_index
from tests.helpers.reference_quant import read_weights

MIB = 1 << 20


def write(out: Path, tensors: Sequence[tuple[str, np.ndarray]], float32: str = "bf16", cap: int = 32 * MIB) -> None:
    with ThreadPoolExecutor(3) as executor:
        writer = ShardWriter(out, executor, float32=float32, cap=cap)  # type: ignore[arg-type]
        for name, value in tensors:
            writer.append(name, value)
        shards = writer.finish()
    write_index(out, shards, Totals(writer.tensors, writer.nbytes, 1000))


def tvm_write(out: Path, tensors: Sequence[tuple[str, np.ndarray]], encoding: str, cap_mb: int) -> None:
    tvmjs = pytest.importorskip("tvm.contrib.tvmjs")
    nbytes = float(sum(value.nbytes for _, value in tensors))
    metadata = {"ParamSize": len(tensors), "ParamBytes": nbytes, "BitsPerParam": nbytes * 8.0 / 1000}
    tvmjs.dump_tensor_cache(
        iter(tensors), str(out), encode_format=encoding, meta_data=metadata, shard_cap_mb=cap_mb, show_progress=False
    )


def files(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


def tensors_of(sizes: Sequence[int], dtypes: Sequence[str]) -> list[tuple[str, np.ndarray]]:
    """One tensor for each size in KiB as stored."""
    rng = np.random.default_rng(len(sizes))
    result = []
    for i, (size, dtype) in enumerate(zip(sizes, dtypes, strict=True)):
        count = size * 1024 // (4 if dtype == "uint32" else 2)
        if dtype == "uint32":
            value: np.ndarray = rng.integers(0, 2**32, (count // 2, 2), dtype=np.uint32)
        else:
            value = rng.standard_normal((count // 2, 2)).astype(dtype)
        result.append((f"layers.{i}.weight", value))
    return result


@pytest.mark.parametrize("float32", ["bf16", "exact"])
@pytest.mark.parametrize(
    "sizes",
    [
        [10],
        [300, 300, 300, 300],
        [100, 2000, 100],
        [1023, 1],
        [512, 512, 511, 513, 1],
        [1024],
        [700, 511, 512, 400],
        [1] * 9,
    ],
    ids=str,
)
def test_same_bytes_as_tvm(tmp_path: Path, sizes: list[int], float32: str) -> None:
    dtypes = [("float16", "float32", "uint32")[i % 3] for i in range(len(sizes))]
    tensors = tensors_of(sizes, dtypes)
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ours.mkdir()
    write(ours, tensors, float32, cap=MIB)
    tvm_write(theirs, tensors, "f32-to-bf16" if float32 == "bf16" else "raw", 1)
    written = files(ours)
    assert written.pop("ndarray-cache.json") == written["tensor-cache.json"]
    assert written == files(theirs)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 1500), st.sampled_from(["float16", "float32", "uint32"])), max_size=8))
def test_same_cuts_as_tvm(tmp_path_factory: pytest.TempPathFactory, spec: list[tuple[int, str]]) -> None:
    tensors = tensors_of([size for size, _ in spec], [dtype for _, dtype in spec])
    base = tmp_path_factory.mktemp("cuts")
    (base / "ours").mkdir()
    write(base / "ours", tensors, cap=MIB)
    tvm_write(base / "theirs", tensors, "f32-to-bf16", 1)
    written = files(base / "ours")
    del written["ndarray-cache.json"]
    assert written == files(base / "theirs")


def test_the_cap_is_32_mib(tmp_path: Path) -> None:
    tensors = [(f"t{i}", np.full((5 * MIB,), i, np.float16)) for i in range(4)]
    write(tmp_path, tensors)
    index = json.loads((tmp_path / "tensor-cache.json").read_text())
    assert [[record["name"] for record in shard["records"]] for shard in index["records"]] == [
        ["t0", "t1", "t2"],
        ["t3"],
    ]
    assert list(read_weights(tmp_path)[0]) == ["t0", "t1", "t2", "t3"]


def test_the_b16_index_only_where_float32_is_rounded(tmp_path: Path) -> None:
    half, single = np.ones(4, np.float16), np.full(4, 1.0 + 2.0**-9, np.float32)
    for name, tensors, float32, expected in (
        ("half", [("a", half)], "bf16", False),
        ("single", [("a", half), ("b", single)], "bf16", True),
        ("exact", [("a", half), ("b", single)], "exact", False),
    ):
        out = tmp_path / name
        out.mkdir()
        write(out, tensors, float32)
        assert (out / "tensor-cache-b16.json").exists() is expected
        values, _ = read_weights(out)
        if "b" in values:
            assert values["b"][0] == (1.0 if float32 == "bf16" else single[0])
    values, _ = read_weights(tmp_path / "single", "tensor-cache-b16.json")
    assert values["b"].dtype == ml_dtypes.bfloat16


def test_float32_is_rounded_half_to_even_and_never_to_infinity() -> None:
    limit = np.uint32(0x7F7F0000).view(np.float32)
    values = np.array([1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-8, limit, np.finfo(np.float32).max, -limit], np.float32)
    assert encode_float32(values).tolist() == [0x3F80, 0x3F82, 0xBF80, 0x7F7F, 0x7F7F, 0xFF7F]


def test_transposed_arrays_are_stored_in_their_own_order(tmp_path: Path) -> None:
    value = np.arange(6, dtype=np.uint32).reshape(2, 3).T
    write(tmp_path, [("t", value)])
    assert read_weights(tmp_path)[0]["t"].tolist() == value.tolist()


def test_a_directory_that_cannot_be_written_is_a_store_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"params_shard_0\.bin"):
        write(tmp_path / "missing", [("t", np.ones(3, np.float16))])
