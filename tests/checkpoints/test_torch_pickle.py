"""The torch reader against torch.save itself, and against pickles that want to do something else."""

import contextlib
import io
import os
import pickle
import struct
import time
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmbuild.checkpoints.torch_machine import run_pickle
from llmbuild.checkpoints.torch_pickle import TorchFile
from llmbuild.errors import InputError


def read_all(path):
    file = TorchFile(path)
    try:
        return {name: file.read(name) for name in file.tensors}
    finally:
        file.close()


def load(path):
    return torch.load(path, weights_only=True)


def as_bytes(tensor):
    return tensor.reshape(-1).contiguous().view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


def check(path, state):
    result = read_all(path)
    assert list(result) == list(state)
    for name, tensor in state.items():
        assert f"torch.{result[name].dtype}" == str(tensor.dtype)
        assert result[name].shape == tuple(tensor.shape)
        assert result[name].flags.c_contiguous
        assert result[name].tobytes() == as_bytes(tensor.detach())


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_dtypes(tmp_path, protocol):
    names = (
        "float32 float16 bfloat16 float64 int64 int32 int16 int8 uint8 bool uint16 uint32 uint64 complex64 complex128"
    )
    names += " float8_e4m3fn float8_e4m3fnuz float8_e5m2 float8_e5m2fnuz float8_e8m0fnu"
    state = {name: torch.arange(12).reshape(3, 4).to(getattr(torch, name)) for name in names.split()}
    path = tmp_path / "pytorch_model.bin"
    torch.save(state, path, pickle_protocol=protocol)
    check(path, state)


def test_views_of_shared_storages(tmp_path):
    base = torch.arange(60, dtype=torch.float32).reshape(5, 12)
    state = OrderedDict(
        whole=base,
        transposed=base.t(),
        rows=base[1:3],
        columns=base[:, 2:9:3],
        element=base[2, 2],
        empty=base[:0],
        row_of_one=base[4:5].expand(1, 12),
        parameter=torch.nn.Parameter(base[0]),
    )
    path = tmp_path / "pytorch_model.bin"
    torch.save(state, path)
    check(path, state)


def test_signs_and_conjugates_that_torch_put_off(tmp_path):
    base = torch.arange(-5.5, 6.5).reshape(3, 4)
    pairs = torch.complex(base, base + 1)
    hung = torch.nn.Parameter(base.clone())
    hung.scale, hung.shape_before = 2.0, (4, 3)
    state = {
        "negative": torch._neg_view(base),
        "negative half": torch._neg_view(base.half()),
        "negative whole numbers": torch._neg_view(base.long()),
        "negative columns": torch._neg_view(base)[:, ::2],
        "imaginary part": pairs.clone().conj().imag,
        "conjugate": pairs.conj(),
        "negative conjugate": torch._neg_view(pairs.conj()),
        "twice": torch._neg_view(torch._neg_view(base)),
        "expanded": torch.tensor([3.0]).expand(1024),
        "expanded rows": torch.arange(4.0).expand(256, 4),
        "expanded columns": torch._neg_view(torch.arange(4.0)[:, None].expand(4, 64)),
        "parameter": torch.nn.Parameter(base),
        "parameter with attributes": hung,
        "tensor with attributes": base.clone(),
    }
    state["tensor with attributes"].note = "anything"
    path = tmp_path / "pytorch_model.bin"
    torch.save(state, path)
    check(path, {name: value.resolve_neg().resolve_conj() for name, value in load(path).items()})
    written = path.read_bytes()
    assert all(
        word in written for word in (b"neg", b"conj", b"_rebuild_parameter_with_state", b"_rebuild_from_type_v2")
    )


class Scaled(torch.Tensor):
    """A class of somebody's program, which may mean anything by its numbers."""


def test_what_changes_a_tensor_in_ways_that_are_not_known_is_refused(tmp_path):
    path = tmp_path / "pytorch_model.bin"
    torch.save({"w": torch.ones(2).as_subclass(Scaled)}, path)
    with pytest.raises(InputError, match=r"asks for the global [\w.]*Scaled"):
        TorchFile(path)
    rebuild = Reduce(torch._tensor._rebuild_from_type_v2, OrderedDict, torch.Tensor, (), {})
    with pytest.raises(InputError, match="a tensor from something that is not one"):
        TorchFile(archive(path, pickle.dumps({"w": rebuild}, 2)))
    rebuild = Reduce(torch._tensor._rebuild_from_type_v2, torch._utils._rebuild_tensor_v2, OrderedDict, (), {})
    with pytest.raises(InputError, match="of a class that is not torch's"):
        TorchFile(archive(path, pickle.dumps({"w": rebuild}, 2)))
    with pytest.raises(InputError, match="a property that is not known"):
        TorchFile(archive(path, tensor_pickle(metadata={"zero": True}), {"0": bytes(24)}))
    with pytest.raises(InputError, match=r"the negative of bool, which has no sign"):
        TorchFile(
            archive(path, tensor_pickle(storage="BoolStorage", metadata={"neg": True}, elements=24), {"0": bytes(24)})
        )


def test_a_module_s_state_dict_with_its_metadata(tmp_path):
    state = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4)).state_dict()
    path = tmp_path / "pytorch_model.bin"
    torch.save(state, path)
    check(path, state)


def archive(path, data, storages=(), *, root="archive", compression=zipfile.ZIP_STORED, extra=()):
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr(f"{root}/data.pkl", data)
        for key, content in dict(storages).items():
            file.writestr(f"{root}/data/{key}", content)
        for name in extra:
            file.writestr(name, b"x")
    return path


class Reduce:
    def __init__(self, function, *arguments):
        self.reduction = (function, arguments)

    def __reduce__(self):
        return self.reduction


def malicious():
    yield "os.system", pickle.dumps({"w": Reduce(os.system, "touch /tmp/never")}, 2), "posix.system"
    yield "eval", pickle.dumps({"w": Reduce(eval, "1/0")}, 2), "builtin"
    yield "exec by STACK_GLOBAL", pickle.dumps({"w": Reduce(exec, "1/0")}, 4), "builtins.exec"
    yield "getattr chain", pickle.dumps(Reduce(getattr, Reduce(__import__, "os"), "system"), 2), "builtin"
    yield "torch.load", b"\x80\x02ctorch\nload\nX\x01\x00\x00\x00x\x85R.", "torch.load"
    yield "torch.hub", b"\x80\x02ctorch.hub\nload\n.", "torch.hub.load"
    yield "dotted name", b"\x80\x04\x8c\x05torch\x8c\x09os.system\x93.", "torch.os.system"
    yield "INST", b"(S'echo'\nios\nsystem\n.", "operation"
    yield "OBJ", b"\x80\x02(cos\nsystem\nX\x01\x00\x00\x00xo.", "os.system"
    yield "REDUCE on a value", b"\x80\x02X\x01\x00\x00\x00x)R.", "calls something"
    yield "REDUCE on a dtype", b"\x80\x02ctorch\nFloatStorage\n)R.", "calls something"
    yield "BUILD on a builder", b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}b.", "sets the state"
    yield "extension registry", b"\x80\x02\x82\x01.", "EXT1"
    yield "persistent id as text", b"Pabc\n.", "PERSID"
    yield "persistent id of another kind", b"\x80\x02X\x06\x00\x00\x00moduleX\x01\x00\x00\x00x\x86Q.", "not a storage"
    yield "not a dictionary", pickle.dumps([1, 2], 2), "holds a list"
    yield "attributes of a class", b"\x80\x02ccollections\nOrderedDict\n}X\x01\x00\x00\x00xK\x01sb.", "sets the state"
    yield "OrderedDict of values", b"\x80\x02ccollections\nOrderedDict\n]\x85R.", "unexpected values"


@pytest.mark.parametrize(("data", "message"), [case[1:] for case in malicious()], ids=[case[0] for case in malicious()])
def test_malicious_pickles_are_refused_by_name(tmp_path, data, message):
    with pytest.raises(InputError) as caught:
        TorchFile(archive(tmp_path / "pytorch_model.bin", data))
    assert message in str(caught.value)
    assert "refused" in str(caught.value)


def test_pickles_that_would_hang_or_fill_memory_are_refused_quickly(tmp_path):
    begin = time.monotonic()
    # A tuple nested two hundred times by pairs of references takes 2^200 steps to hash.
    deep = b"\x80\x02}" + b")" + b"q\x00h\x00\x86" * 200 + b"K\x01s."
    with pytest.raises(InputError, match="as the key of a dictionary"):
        run_pickle(deep, tmp_path)
    # Python's unpickler allocates a table up to this index of its memo.
    huge = b"\x80\x02}r\xff\xff\xff\x7f."
    assert run_pickle(huge, tmp_path) == {}
    with pytest.raises(InputError):
        run_pickle(b"\x80\x02\x8a\xff" + b"\x01" * 40, tmp_path)
    assert time.monotonic() - begin < 2


def tensor_pickle(shape=(2, 3), strides=(3, 1), offset=0, key="0", elements=6, storage="FloatStorage", metadata=None):
    """A state dict of one tensor, written by Python's own pickler with torch's conventions."""

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            return ("storage", getattr(torch, storage), key, "cpu", elements) if value == "STORAGE" else None

    buffer = io.BytesIO()
    rebuild = Reduce(torch._utils._rebuild_tensor_v2, "STORAGE", offset, shape, strides, False, OrderedDict(), metadata)
    Pickler(buffer, 2).dump({"w": rebuild})
    return buffer.getvalue()


def test_the_hand_made_pickle_is_a_valid_one(tmp_path):
    data = np.arange(6, dtype=np.float32)
    path = archive(tmp_path / "pytorch_model.bin", tensor_pickle(), {"0": data.tobytes()})
    assert read_all(path)["w"].tolist() == data.reshape(2, 3).tolist()


BROKEN_TENSORS = {
    "missing storage": ({"key": "1"}, "not in the archive"),
    "storage outside": ({"key": "../0"}, "not in the archive"),
    "short storage": ({"elements": 7}, "should have 7 elements and has 6"),
    "past the end": ({"offset": 1}, "past the end"),
    "strides past the end": ({"strides": (4, 1)}, "past the end"),
    "expanded to absurd size": ({"shape": (1 << 40, 3), "strides": (0, 1)}, "more elements than its storage"),
    "negative size": ({"shape": (-2, 3)}, "impossible sizes"),
    "negative stride": ({"strides": (-3, 1)}, "impossible sizes"),
    "negative offset": ({"offset": -1}, "impossible sizes"),
    "size is text": ({"shape": ("2", 3)}, "impossible sizes"),
    "ranks differ": ({"strides": (1,)}, "number of dimensions"),
    "too many dimensions": ({"shape": (1,) * 70, "strides": (1,) * 70}, "number of dimensions"),
    "another type": ({"storage": "DoubleStorage"}, "should have 6 elements and has 3"),
}


@pytest.mark.parametrize("case", BROKEN_TENSORS)
def test_inconsistent_tensors_are_explained(tmp_path, case):
    arguments, message = BROKEN_TENSORS[case]
    path = archive(tmp_path / "pytorch_model.bin", tensor_pickle(**arguments), {"0": bytes(24)})
    with pytest.raises(InputError) as caught:
        TorchFile(path)
    assert message in str(caught.value)


def test_archives_that_are_not_plain_state_dicts(tmp_path):
    path = tmp_path / "pytorch_model.bin"
    good = tensor_pickle()
    cases = [
        ({"extra": ["../../etc/passwd"]}, "unsafe name"),
        ({"extra": ["/etc/passwd"]}, "unsafe name"),
        ({"extra": ["archive/constants.pkl"]}, "TorchScript"),
        ({"extra": ["other/data.pkl"]}, "2 data.pkl"),
        ({"compression": zipfile.ZIP_DEFLATED}, "compressed"),
    ]
    for arguments, message in cases:
        with pytest.raises(InputError, match=message):
            TorchFile(archive(path, good, {"0": bytes(24)}, **arguments))
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("readme", "x")
    with pytest.raises(InputError, match=r"0 data\.pkl"):
        TorchFile(path)
    nested = pickle.dumps({"state_dict": {"a": 1}}, 2)
    with pytest.raises(InputError, match="'state_dict' of the torch file is a dictionary of its own"):
        TorchFile(archive(path, nested))
    with pytest.raises(InputError, match="'step' of the torch file is not a tensor"):
        TorchFile(archive(path, pickle.dumps({"step": 1}, 2)))


def test_legacy_and_foreign_files(tmp_path):
    path = tmp_path / "pytorch_model.bin"
    torch.save({"a": torch.ones(2)}, path, _use_new_zipfile_serialization=False)
    with pytest.raises(InputError, match=r"before torch 1\.6[^!]*weights_only=True"):
        TorchFile(path)
    for content in (b"", b"PK", b"hello world", b"PK\x03\x04" + bytes(40)):
        path.write_bytes(content)
        with pytest.raises(InputError):
            TorchFile(path)


def small_file(tmp_path):
    path = tmp_path / "small.bin"
    torch.save({"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(3, dtype=torch.bfloat16)}, path)
    return path.read_bytes()


def test_every_cut_is_an_input_error(tmp_path):
    whole = small_file(tmp_path)
    path = tmp_path / "cut.bin"
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError):
            read_all(path)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Of pickletools, for bad escapes in old text.
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=200)
@given(position=st.integers(0, 5000), values=st.binary(min_size=1, max_size=4))
def test_altered_files_never_crash(tmp_path, position, values):
    whole = bytearray(small_file(tmp_path))
    position %= len(whole) - len(values)
    whole[position : position + len(values)] = values
    path = tmp_path / "altered.bin"
    path.write_bytes(whole)
    with contextlib.suppress(InputError):
        read_all(path)


@settings(deadline=None, max_examples=200)
@given(data=st.binary(max_size=60))
def test_random_pickles_never_crash(tmp_path_factory, data):
    with contextlib.suppress(InputError):
        run_pickle(b"\x80\x02}" + data + b".", tmp_path_factory.getbasetemp())


def test_the_size_of_a_storage_comes_from_the_archive(tmp_path):
    path = archive(tmp_path / "pytorch_model.bin", tensor_pickle(), {"0": struct.pack("<6f", *range(6))})
    file = TorchFile(path)
    assert file.tensors["w"].nbytes == 24
    file.close()
