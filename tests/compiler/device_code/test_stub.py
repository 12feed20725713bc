"""The stand-ins for NVIDIA's driver libraries."""

from __future__ import annotations

import ctypes
import platform
import subprocess
import sys
from pathlib import Path

import lief
import pytest

from llmbuild.compiler.device_code.stub import shared_object
from llmbuild.errors import ToolchainError

NAMES = ["cuLaunchKernelEx", "cuModuleLoadData", "cudaGetErrorName"]


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_an_independent_reader_finds_the_name_and_the_functions(machine: str, tmp_path: Path) -> None:
    (tmp_path / "lib.so").write_bytes(shared_object("libcuda.so.1", NAMES, machine))
    binary = lief.ELF.parse(str(tmp_path / "lib.so"))
    assert binary is not None and binary.header.machine_type == getattr(lief.ELF.ARCH, machine.upper())
    assert binary[lief.ELF.DynamicEntry.TAG.SONAME].name == "libcuda.so.1"  # type: ignore[attr-defined]
    assert sorted(str(symbol.name) for symbol in binary.dynamic_symbols if symbol.name) == NAMES
    stack = next(part for part in binary.segments if part.type == lief.ELF.Segment.TYPE.GNU_STACK)
    assert not stack.has(lief.ELF.Segment.FLAGS.X)


def test_every_function_says_that_there_is_no_device(tmp_path: Path) -> None:
    (tmp_path / "lib.so").write_bytes(shared_object("libcuda_none.so.1", NAMES, platform.machine()))
    library = ctypes.CDLL(str(tmp_path / "lib.so"))
    assert library.cuLaunchKernelEx() == library.cuModuleLoadData() == 100
    library.cudaGetErrorName.restype = ctypes.c_char_p
    assert library.cudaGetErrorName() == b"no CUDA device"
    assert not hasattr(library, "cuInit")


def test_the_runtime_of_tvm_loads_with_them() -> None:
    code = (
        "import ctypes, sys, tvm\n"
        "from llmbuild.compiler.device_code import stub\n"
        "stub.load_cuda_runtime(); stub.load_cuda_runtime()\n"
        "print(tvm.get_global_func('ffi.Module.create.cuda', True) is not None)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "True"


def test_a_machine_that_is_not_known() -> None:
    with pytest.raises(ToolchainError, match="nothing can stand in for it on riscv64"):
        shared_object("libcuda.so.1", NAMES, "riscv64")
