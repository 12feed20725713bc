"""Compilers of device code that TVM leaves to others: CUDA's for NVIDIA, a linker of code objects for AMD.

Metal, OpenCL and WebGPU libraries hold source that their drivers compile, and TVM writes Vulkan's binaries itself.  Nothing
here imports TVM before `prepare`: a plan asks which compiler would be taken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from llmbuild.canonical import Json
from llmbuild.programs.parts import Parts, program_parts


def device_tool(compile_part: Mapping[str, Json]) -> str | None:
    """What compiles the device code and its version, such as "nvcc 13.0.88"; None for a device that needs nothing.

    Raises ToolchainError when it is not on this machine or makes no code for an architecture of the target.
    """
    kind, archs = _kind(compile_part)
    if kind == "cuda":
        from llmbuild.compiler.devices import cuda

        return cuda.compiler_for(archs).identity
    if kind == "rocm":
        from llmbuild.compiler.devices import rocm

        return rocm.find_linker().name
    return None


def device_parts(compile_part: Mapping[str, Json]) -> Parts | None:
    """The files of what `device_tool` names, which is asked nothing; None where that is nothing.

    Raises ToolchainError when it is not on this machine.
    """
    kind, _ = _kind(compile_part)
    if kind == "cuda":
        from llmbuild.compiler.devices import cuda

        return cuda.find_compiler().parts
    if kind == "rocm":
        from llmbuild.compiler.devices import rocm

        return program_parts(rocm.find_linker())
    return None


def prepare(compile_part: Mapping[str, Json]) -> AbstractContextManager[None]:
    """A context in which TVM builds and exports modules for the device: its callbacks are those of the device's compiler.

    Entering raises ToolchainError as `device_tool` does; a compiler that fails raises one with its words.
    """
    kind, archs = _kind(compile_part)
    if kind == "cuda":
        from llmbuild.compiler.devices import cuda

        return cuda.compiling(archs)
    if kind == "rocm":
        from llmbuild.compiler.devices import rocm

        return rocm.linking()
    return nullcontext()


def require_machine_code(compile_part: Mapping[str, Json], objects: Path) -> None:
    """Raise ToolchainError unless the object file holds machine code for every architecture of the target, and no source."""
    kind, archs = _kind(compile_part)
    if kind == "cuda":
        from llmbuild.compiler.devices import cuda

        cuda.require(archs, objects)
    if kind == "rocm":
        from llmbuild.compiler.devices import rocm

        rocm.require(archs, objects)


def _kind(compile_part: Mapping[str, Json]) -> tuple[str, Sequence[str]]:
    device = compile_part["device"]
    kind = str(device["kind"]) if isinstance(device, Mapping) else str(device)
    archs = compile_part.get("archs") or ()
    if not archs and isinstance(device, Mapping):
        # A target that was not resolved from a file names its one architecture as TVM does.
        named = device.get("arch", device.get("mcpu"))
        archs = () if named is None else (str(named),)
    if isinstance(archs, str) or not isinstance(archs, Sequence):
        raise TypeError(f"archs is a list of architectures, not {archs!r}")
    return kind, tuple(map(str, archs))
