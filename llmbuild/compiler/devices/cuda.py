"""CUDA: machine code for every architecture of a target in one fat binary, made where no GPU and no driver is.

nvcc is used where it is on PATH or in $CUDA_HOME, else NVRTC from the Python wheels.  Either makes machine code for each
architecture of the target, and PTX, which the driver of a later GPU compiles when the library is loaded.  TVM's CUDA module
stores the fat binary as it would a single cubin: cuModuleLoadData accepts both.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmbuild.compiler.device_code import callbacks, fatbin
from llmbuild.compiler.device_code.nvcc import Nvcc, find_nvcc
from llmbuild.compiler.devices.gpu import SAMPLING, Gpu
from llmbuild.errors import ToolchainError
from llmbuild.programs.parts import Parts

if TYPE_CHECKING:
    from llmbuild.compiler.device_code.nvrtc import Nvrtc


class Cuda(Gpu):
    """Its kernels have indices of 64 bits where shapes have, unlike those of all other devices."""

    sampling = SAMPLING
    records_graphs = True

    def identity(self, archs: Sequence[str]) -> str:
        return compiler_for(archs).identity

    def parts(self) -> Parts:
        return find_compiler().parts

    def prepare(self, archs: Sequence[str]) -> AbstractContextManager[None]:
        return compiling(archs)

    def require(self, archs: Sequence[str], objects: Path) -> None:
        require(archs, objects)

    def schedules(self, target: Any, *, stock: bool = False) -> list[Any]:  # noqa: ARG002
        from llmbuild.compiler import schedules
        from llmbuild.compiler.intrinsics import import_intrinsics

        import_intrinsics("cuda")
        return schedules.for_gpu(target)


DEVICE = Cuda("cuda")


def find_compiler() -> Nvcc | Nvrtc:
    """The compiler that a build uses, not run yet.  Raises ToolchainError when none is found."""
    found = find_nvcc()
    if found is not None:
        return found
    from llmbuild.compiler.device_code.nvrtc import INSTALL, find_nvrtc

    wheels = find_nvrtc()
    if wheels is None:
        raise ToolchainError(
            "there is no CUDA compiler",
            why="nvcc is neither on PATH nor in $CUDA_HOME/bin, and the Python package nvidia-cuda-nvrtc is not installed",
            fix=f"{INSTALL} brings one that needs no GPU; or install CUDA",
        )
    return wheels


def compiler_for(archs: Sequence[str]) -> Nvcc | Nvrtc:
    """The same when it makes code for all of the architectures; raises ToolchainError when it does not."""
    found = find_compiler()
    known = found.archs
    unknown = [arch for arch in archs if re.sub(r"[af]$", "", arch) not in known]
    if unknown:
        raise ToolchainError(
            f"{found.identity} makes no code for {', '.join(unknown)}",
            why=f"it makes code for {', '.join(sorted(known, key=fatbin.number_of))}",
            fix="take another release of CUDA, or remove the architecture from archs",
        )
    return found


@contextmanager
def compiling(archs: Sequence[str]) -> Iterator[None]:
    """Within this context, TVM's CUDA modules contain machine code for the architectures."""
    from llmbuild.compiler.device_code.stub import load_cuda_runtime

    compiler = compiler_for(archs)
    load_cuda_runtime()

    def compile_code(code: str) -> bytes:
        begun = time.monotonic()
        made = compiler.compile(code, archs)
        kernels = code.count('extern "C" __global__') // 2 or code.count("__global__")
        print(
            f"{compiler.identity}: {kernels} kernels for {', '.join(archs)} and PTX, "
            f"{len(made)} bytes in {time.monotonic() - begun:.1f} s"
        )
        return made

    # At import it registers a callback of the same name.
    import tvm.support.nvcc  # noqa: F401

    with callbacks.replaced({"tvm_callback_cuda_compile": compile_code}):
        yield


def lacking(archs: Sequence[str], data: bytes) -> str | None:
    """The machine code that a CUDA library requires and an object file lacks, or None.

    Source text in it means that it would be compiled where the library is loaded.
    """
    if re.search(rb"__global__\s+void", data) is not None:
        return "it holds CUDA source, which would be compiled where the library is loaded"
    found = list(fatbin.entries(data))
    wanted = [
        f"machine code for {arch}" for arch in sorted({*archs} - {one.arch for one in found if one.kind == "cubin"})
    ]
    if not any(one.kind == "ptx" and one.arch[-1].isdigit() for one in found):
        wanted.append("PTX for later architectures")
    return "it has no " + ", ".join(wanted) if wanted else None


def require(archs: Sequence[str], path: Path) -> None:
    """Raise ToolchainError unless the object file contains the required machine code."""
    wrong = lacking(archs, path.read_bytes())
    if wrong is not None:
        raise ToolchainError(
            "the CUDA part of the library is not machine code",
            where=path.name,
            why=wrong,
            fix="unset TVM_COMPILE_FORCE_FALLBACK, and report this when that was not it",
        )
