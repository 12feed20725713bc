"""The safetensors reader against the reference implementation, on valid, cut and altered files."""

import json
import re

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load, save

from llmbuild.checkpoints.safetensors import BITS, SafetensorsFile
from llmbuild.checkpoints.safetensors import DTYPES as DTYPES_BY_CODE
from llmbuild.errors import InputError

DTYPES = [
    np.bool_,
    np.uint8,
    np.int8,
    np.int16,
    np.uint16,
    np.int32,
    np.uint32,
    np.int64,
    np.float16,
    np.float32,
    np.float64,
]
relaxed = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)


def arrays():
    shapes = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5)
    return st.sampled_from(DTYPES).flatmap(lambda dtype: hnp.arrays(dtype, shapes))


def read_all(path):
    file = SafetensorsFile(path)
    try:
        return {name: file.read(name) for name in file.tensors}
    finally:
        file.close()


def build(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


@relaxed
@given(tensors=st.dictionaries(st.text(max_size=8).filter(lambda name: name != "__metadata__"), arrays(), max_size=5))
def test_round_trip(tmp_path, tensors):
    path = tmp_path / "x.safetensors"
    path.write_bytes(save(tensors, metadata={"format": "pt"}))
    result = read_all(path)
    assert set(result) == set(tensors)
    for name, value in result.items():
        assert value.dtype == tensors[name].dtype
        assert value.shape == tensors[name].shape
        assert value.tobytes() == tensors[name].tobytes()
        assert value.flags.writeable


def test_bfloat16_and_float8_are_read_as_ml_dtypes(tmp_path):
    import torch
    from safetensors.torch import save_file

    path = tmp_path / "x.safetensors"
    values = torch.linspace(-3, 3, 24).reshape(4, 6)
    dtypes = [torch.bfloat16, torch.float8_e4m3fn, torch.float8_e4m3fnuz, torch.float8_e5m2, torch.float8_e5m2fnuz]
    dtypes.append(torch.float8_e8m0fnu)
    values = values.abs() + 0.5
    save_file({str(dtype): values.to(dtype) for dtype in dtypes}, path)
    result = read_all(path)
    for dtype in dtypes:
        assert f"torch.{result[str(dtype)].dtype}" == str(dtype)
        assert np.array_equal(result[str(dtype)].astype(np.float32), values.to(dtype).float().numpy())


def every_dtype():
    """The names that the reference implementation lists when it refuses one."""
    with pytest.raises(SafetensorError) as caught:
        load(build({"w": entry(dtype="no such type")}, bytes(8)))
    return re.findall(r"`([A-Z]\w+)`", str(caught.value))


def test_every_type_of_the_reference_implementation_is_known(tmp_path):
    assert sorted(every_dtype()) == sorted([*DTYPES_BY_CODE, *BITS])
    path = tmp_path / "x.safetensors"
    for code in every_dtype():
        for shape, size in (
            ((4, 8), 16),
            ((4, 8), 24),
            ((4, 8), 32),
            ((4, 8), 64),
            ((4, 8), 128),
            ((4, 8), 256),
            ((3,), 2),
        ):
            path.write_bytes(build({"w": entry(code, shape, (0, size))}, bytes(size)))
            try:
                with safe_open(path, "np") as reference:
                    wanted = reference.get_slice("w").get_shape()
            except SafetensorError:
                with pytest.raises(InputError):
                    SafetensorsFile(path)
                continue
            info = SafetensorsFile(path).tensors["w"]
            assert (list(info.shape), info.nbytes) == (wanted, size), code


@pytest.mark.parametrize("code", list(BITS))
def test_a_tensor_of_less_than_bytes_is_known_and_not_read(tmp_path, code):
    size = 8 * BITS[code][1] // 8
    path = tmp_path / "x.safetensors"
    path.write_bytes(build({"w": entry(code, (2, 4), (0, size))}, bytes(size)))
    with pytest.raises(InputError, match=r"several elements share a byte: its weights are quantized"):
        read_all(path)


def test_every_cut_is_an_input_error(tmp_path):
    whole = save({"a": np.arange(6, dtype=np.float32), "b": np.arange(4, dtype=np.int16)})
    path = tmp_path / "x.safetensors"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError):
            SafetensorsFile(path)
    path.write_bytes(whole + b"\0")
    with pytest.raises(InputError, match="belong to no tensor"):
        SafetensorsFile(path)


@settings(relaxed, max_examples=300)
@given(position=st.integers(0, 10_000), value=st.integers(0, 255), count=st.integers(1, 3))
def test_altered_files_never_crash_and_agree_with_the_reference(tmp_path, position, value, count):
    whole = bytearray(save({"ab": np.arange(6, dtype=np.float32).reshape(2, 3), "c": np.arange(4, dtype=np.int16)}))
    for step in range(count):
        whole[(position + step * 7) % len(whole)] = value
    path = tmp_path / "x.safetensors"
    path.write_bytes(whole)
    try:
        ours = read_all(path)
    except InputError:
        return
    reference = load(bytes(whole))
    assert {name: array.tobytes() for name, array in ours.items()} == {
        name: array.tobytes() for name, array in reference.items()
    }


def entry(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


EIGHT = bytes(8)
BROKEN = {
    "empty file": (b"", "truncated"),
    "absurd header length": (b"\xff" * 16, "its header would have"),
    "header longer than the file": ((1000).to_bytes(8, "little") + b"{}", "truncated"),
    "not json": (build(b"{]"), "not valid JSON"),
    "not utf-8": (build(b'{"\xff": 1}'), "not UTF-8"),
    "an array": (build(b"[1]"), "not a JSON object"),
    "nested": (build(b'{"a":' * 100_000), "nested too deeply"),
    "twice": (
        build(
            b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}',
            b"1",
        ),
        "names 'a' twice",
    ),
    "entry is text": (build({"a": "b"}), "needs dtype, shape and data_offsets"),
    "no shape": (build({"a": {"dtype": "F32", "data_offsets": [0, 8]}}, EIGHT), "needs dtype, shape"),
    "unknown dtype": (build({"a": entry("F31")}, EIGHT), "dtype is 'F31'; known are"),
    "dtype is a list": (build({"a": entry(["F32"])}, EIGHT), "has a type that is not known"),
    "negative size": (build({"a": entry(shape=(-2,))}, EIGHT), "not a list of sizes"),
    "fraction": (build({"a": entry(shape=(2.0,))}, EIGHT), "not a list of sizes"),
    "truth": (build({"a": entry("U8", (True,), (0, 1))}, b"1"), "not a list of sizes"),
    "shape mismatch": (build({"a": entry(shape=(3,))}, EIGHT), "needs 12 bytes, data_offsets give 8"),
    "overflowing shape": (build({"a": entry(shape=(1 << 40, 1 << 40))}, EIGHT), "is absurd"),
    "empty but absurd": (build({"a": entry(shape=(0, 1 << 62), offsets=(0, 0))}), "is absurd"),
    "too many dimensions": (build({"a": entry(shape=(1,) * 65, offsets=(0, 4))}, EIGHT), "is absurd"),
    "three offsets": (build({"a": entry(offsets=(0, 4, 8))}, EIGHT), "not two positions"),
    "backwards": (build({"a": entry(offsets=(8, 0))}, EIGHT), "data_offsets give -8"),
    "overlap": (build({"a": entry(), "b": entry(offsets=(4, 12))}, bytes(12)), "overlaps"),
    "hole": (build({"a": entry(), "b": entry(offsets=(12, 20))}, bytes(20)), "4 bytes before its data"),
    "outside": (build({"a": entry(), "b": entry(offsets=(8, 16))}, bytes(12)), "truncated"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_files_are_explained(tmp_path, case):
    data, message = BROKEN[case]
    path = tmp_path / "x.safetensors"
    path.write_bytes(data)
    with pytest.raises(InputError) as caught:
        SafetensorsFile(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    # The reference keeps the last of two equal names and allows an empty tensor of any shape.
    if len(data) < 1000 and case not in ("twice", "empty but absurd"):
        with pytest.raises(SafetensorError):
            load(data)


def test_a_file_cut_after_opening_is_an_input_error(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(save({"a": np.arange(6, dtype=np.float32)}))
    file = SafetensorsFile(path)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(InputError, match="truncated"):
        file.read("a")
    file.close()


def test_a_missing_file_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="cannot be opened"):
        SafetensorsFile(tmp_path / "none.safetensors")


def test_reading_keeps_memory_low(tmp_path):
    """256 MiB in 16 tensors are read one by one with the peak of a few of them."""
    import subprocess
    import sys

    path = tmp_path / "x.safetensors"
    count, size = 16, 16 << 20
    header = {f"t{i}": entry("U8", (size,), (i * size, (i + 1) * size)) for i in range(count)}
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + count * size)
    code = """
import resource, sys
from pathlib import Path
import ml_dtypes, numpy
from llmbuild.checkpoints.safetensors import BITS, SafetensorsFile
from llmbuild.checkpoints.safetensors import DTYPES as DTYPES_BY_CODE
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
file = SafetensorsFile(Path(sys.argv[1]))
for name in file.tensors:
    file.read(name).sum()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    result = subprocess.run([sys.executable, "-c", code, str(path)], check=True, capture_output=True, text=True)
    assert int(result.stdout) * 1024 < 4 * size
