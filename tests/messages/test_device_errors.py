"""Errors of the compilers of device code.  Stand-ins take the compilers' places, so they read the same on every machine."""

from __future__ import annotations

import importlib.machinery
import importlib.metadata
import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from llmbuild.compiler import devices
from llmbuild.compiler.device_code import fatbin, nvcc, nvrtc, stub
from llmbuild.compiler.devices import rocm
from llmbuild.compiler.lower import require_code_generator
from llmbuild.errors import LlmbuildError
from llmbuild.programs import zig
from llmbuild.programs.run import Tool

Case = Callable[[Path, pytest.MonkeyPatch], object]
HOST = {"kind": "llvm", "mtriple": "x86_64-unknown-linux-gnu"}
CUDA = {"device": {"kind": "cuda", "arch": "sm_80"}, "host": HOST, "archs": ["sm_80", "sm_120"]}
ROCM = {"device": {"kind": "rocm", "mcpu": "gfx1100"}, "host": HOST, "archs": ["gfx1100"]}


def program(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def no_code_generator(path: Path, patch: pytest.MonkeyPatch) -> None:
    import tvm

    patch.setattr(tvm, "get_global_func", lambda name, allow_missing: None)
    require_code_generator("vulkan")


# CUDA.


def only_nvcc(path: Path, patch: pytest.MonkeyPatch, script: str | None) -> None:
    """A machine whose only CUDA compiler is this script, or none."""
    for name in ("CUDA_HOME", "CUDA_PATH"):
        patch.delenv(name, raising=False)
    patch.setenv("PATH", f"{path}")
    patch.setattr(nvrtc, "find_nvrtc", lambda: None)
    if script is not None:
        program(path / "nvcc", script)


def nvcc_that(script: str | None) -> Case:
    """Which compiler is taken on such a machine."""

    def provoke(path: Path, patch: pytest.MonkeyPatch) -> None:
        only_nvcc(path, patch, script)
        devices.identity(CUDA)

    return provoke


def a_kernel_that_nvcc_refuses(path: Path, patch: pytest.MonkeyPatch) -> None:
    said = "[ $1 != --version ] || exec echo V13.0.88; "
    said += "echo 'kernels.cu(3): error: identifier \"x\" is undefined' >&2; exit 2"
    nvcc.Nvcc(Tool((program(path / "nvcc", said),), "nvcc")).compile("", ["sm_80"])


def wheels(*installed: str) -> Case:
    """A machine with these wheels of NVIDIA, and without a file in them."""

    def provoke(path: Path, patch: pytest.MonkeyPatch) -> None:
        def version(name: str) -> str:
            if name not in installed:
                raise importlib.metadata.PackageNotFoundError(name)
            return "12.9.86"

        spec = importlib.machinery.ModuleSpec("nvidia", None, is_package=True)
        patch.setattr(importlib.metadata, "version", version)
        patch.setattr(importlib.util, "find_spec", lambda _: spec)
        nvrtc.find_nvrtc()

    return provoke


class Nvrtc:
    """NVRTC's functions: all of them succeed but for those that are named."""

    def __init__(self, **codes: int) -> None:
        self._codes = codes

    def __getattr__(self, name: str) -> Callable[..., int]:
        def call(*arguments: object) -> int:
            text = b"kernels.cu(3): error: identifier is undefined"
            if name == "nvrtcGetProgramLogSize":
                arguments[1]._obj.value = len(text) + 1  # type: ignore[attr-defined]
            if name == "nvrtcGetProgramLog":
                arguments[1].value = text  # type: ignore[attr-defined]
            return self._codes.get(name, 0)

        return call


def nvrtc_whose(**codes: int) -> Case:
    def provoke(path: Path, patch: pytest.MonkeyPatch) -> None:
        patch.setattr(nvrtc, "_library", lambda root, name: Nvrtc(**codes))
        nvrtc.Nvrtc(("13.0.88",), path).compile("", ["sm_80"])

    return provoke


def a_wheel_without_a_library(path: Path, patch: pytest.MonkeyPatch) -> None:
    nvrtc._library(path, "libnvfatbin.so")


def checked(part: dict[str, object], data: bytes) -> Case:
    """An object file that is to hold machine code."""

    def provoke(path: Path, patch: pytest.MonkeyPatch) -> None:
        (path / "devc.o").write_bytes(data)
        devices.require(part, path / "devc.o")  # type: ignore[arg-type]

    return provoke


def runtime(file: bool, machine: str = "") -> Case:
    """A TVM whose CUDA runtime is not there, or is no library; on a machine that has no driver where one is named."""

    def provoke(path: Path, patch: pytest.MonkeyPatch) -> None:
        import tvm.base
        import tvm_ffi

        if machine:
            stub.shared_object("libcuda.so.1", ["cuInit"], machine)
        if file:
            (path / "libtvm_runtime_cuda.so").write_bytes(b"")
        patch.setattr(tvm_ffi, "get_global_func", lambda name, allow_missing: None)
        loaded = {"tvm_runtime": SimpleNamespace(_name=str(path / "libtvm_runtime.so"))}
        patch.setattr(tvm.base, "_LOADED_LIBS", loaded)
        # The driver's libraries are not looked for: a machine may have them.
        patch.setattr(stub, "NEEDED", {})
        stub.load_cuda_runtime()

    return provoke


# ROCm.


def linker_that(script: str | None) -> Case:
    """Which linker is taken on a machine where this script is the only one."""

    def provoke(path: Path, patch: pytest.MonkeyPatch) -> None:
        patch.setattr(zig, "_program", lambda: None)
        patch.setenv("PATH", str(path))
        patch.setenv("ROCM_PATH", str(path))
        if script is not None:
            program(path / "ld.lld", script)
        devices.identity(ROCM)

    return provoke


def code_that_a_linker_refuses(path: Path, patch: pytest.MonkeyPatch) -> None:
    said = "echo 'ld.lld: error: undefined symbol: __ocml_exp_f32' >&2; exit 1"
    rocm.link(Tool((program(path / "ld.lld", said),), "lld", called="ld.lld 19.1.7"), b"")


def other_code_objects(path: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(rocm, "code_objects", lambda data: [b""])
    patch.setattr(rocm, "machine", lambda data: "gfx90a")
    checked(ROCM, b"")(path, patch)


OLD_NVCC = 'case $1 in --version) echo "release, V12.4.99";; *) echo sm_80; echo sm_90;; esac'
CASES: dict[str, Case] = {
    "no code generator": no_code_generator,
    "no CUDA compiler": nvcc_that(None),
    "an architecture that nvcc does not know": nvcc_that(OLD_NVCC),
    "a kernel that nvcc refuses": a_kernel_that_nvcc_refuses,
    "some wheels": wheels("nvidia-cuda-nvrtc", "nvidia-cuda-runtime"),
    "wheels of another CUDA": wheels(*nvrtc._DISTRIBUTIONS),
    "a wheel without a library": a_wheel_without_a_library,
    "NVRTC that fails": nvrtc_whose(nvrtcCreateProgram=2),
    "a kernel that NVRTC refuses": nvrtc_whose(nvrtcCompileProgram=6),
    "CUDA source": checked(CUDA, b'extern "C" __global__ void add(float* a)'),
    "no fat binary": checked(CUDA, fatbin.MAGIC),
    "no runtime of CUDA": runtime(file=False),
    "a runtime of CUDA that does not load": runtime(file=True),
    "no stand-in for a driver": runtime(file=True, machine="riscv64"),
    "no linker of code objects": linker_that(None),
    "an old linker of code objects": linker_that("echo Debian LLD 14.0.6"),
    "code that a linker refuses": code_that_a_linker_refuses,
    "no code object": checked(ROCM, b""),
    "other code objects": other_code_objects,
}


@pytest.mark.parametrize("name", CASES)
def test_it_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LlmbuildError):
        CASES[name](tmp_path, monkeypatch)
