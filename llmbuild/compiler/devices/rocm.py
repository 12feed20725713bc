"""ROCm: code objects for AMD GPUs, made by the LLVM inside TVM and linked by LLVM's linker.

TVM requests bitcode files to link into its kernels, and a linker.  Its own callbacks look for an installed ROCm.  No
library of AMD is needed here: the mathematical functions of the kernels are instructions, or LLVM's code generator expands
them.  The one file that is passed selects the version of code objects: 5, which ROCm 5.3 and later load (AMDGPU usage of LLVM,
"Code Object V5"); version 6, LLVM's default, requires ROCm 6.3.
"""

from __future__ import annotations

import os
import re
import shutil
import struct
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path

from llmbuild.compiler.device_code import callbacks
from llmbuild.compiler.devices.gpu import Gpu
from llmbuild.errors import ToolchainError
from llmbuild.programs.parts import Parts, program_parts
from llmbuild.programs.run import Tool, ask_tool, run_tool
from llmbuild.programs.zig import zig

OLDEST = 15
"""The first release of LLVM's linker that is used: 14 fails on code objects with "unknown abi version"."""

_INSTALL = "`pip install 'llmbuild[cross]'` brings one; or install ROCm, or `apt-get install lld-16`"
_VERSION_5 = '!llvm.module.flags = !{!0}\n!0 = !{i32 1, !"amdhsa_code_object_version", i32 500}\n'

_EM_AMDGPU = 224
_ELFOSABI_AMDGPU_HSA = 64


class Rocm(Gpu):
    def identity(self, archs: Sequence[str]) -> str:  # noqa: ARG002
        return find_linker().name

    def parts(self) -> Parts:
        return program_parts(find_linker())

    def prepare(self, archs: Sequence[str]) -> AbstractContextManager[None]:  # noqa: ARG002
        return linking()

    def require(self, archs: Sequence[str], objects: Path) -> None:
        require(archs, objects)


DEVICE = Rocm("rocm")


def link(linker: Tool, code: bytes) -> bytes:
    """A code object from a relocatable one.  Raises ToolchainError, for undefined symbols too."""
    with tempfile.TemporaryDirectory(prefix="rocm-") as scratch:
        place = Path(scratch)
        (place / "kernels.o").write_bytes(code)
        arguments = ["--no-undefined", "-shared", "kernels.o", "-o", "kernels.co"]
        run_tool(linker, arguments, place, makes="kernels.co", fix=f"take another linker: {_INSTALL}")
        return (place / "kernels.co").read_bytes()


def find_linker() -> Tool:
    """LLVM's linker for ELF, with its name and version: the ziglang package's, else one on PATH or of an installed ROCm.

    Raises ToolchainError when there is none.
    """
    linker = zig("ld.lld")
    if linker is not None:
        return replace(linker, called=f"{linker.name} {linker.version}")
    too_old = []
    rocm = os.path.join(os.environ.get("ROCM_PATH") or "/opt/rocm", "llvm", "bin")  # noqa: PTH118 - a PATH, not a file.
    for path in (None, rocm):
        for name in ("ld.lld", *(f"ld.lld-{version}" for version in range(30, OLDEST - 1, -1))):
            program = shutil.which(name, path=path) or ""
            if not program:
                continue
            linker = Tool((program,), "lld")
            version = re.search(r"LLD (\d+)[\d.]*", ask_tool(linker, "--version"))
            if version is not None and int(version[1]) >= OLDEST:
                return replace(linker, called=f"ld.{version[0].lower()}")
            too_old.append("an unknown version" if version is None else version[0])
    raise ToolchainError(
        "there is no linker for code objects of AMD GPUs",
        why=f"{', '.join(too_old)} on PATH is too old" if too_old else "ld.lld is not on PATH",
        fix=_INSTALL,
    )


@contextmanager
def linking() -> Iterator[None]:
    """Within this context, the linker that was found links TVM's ROCm modules."""
    linker = find_linker()

    def linked(code: bytes) -> bytes:
        made = link(linker, bytes(code))
        print(f"{linker.name}: a code object of {len(made)} bytes")
        return made

    import tvm.support.rocm  # noqa: F401 - it registers callbacks of the same names when it is imported.

    with tempfile.TemporaryDirectory(prefix="rocm-") as scratch:
        flags = Path(scratch) / "version.ll"
        flags.write_text(_VERSION_5, encoding="utf-8")
        bitcode = [str(flags)]
        with callbacks.replaced(
            {"tvm_callback_rocm_bitcode_path": lambda *_: bitcode, "tvm_callback_rocm_link": linked}
        ):
            yield


def require(archs: Sequence[str], path: Path) -> None:
    """Raise ToolchainError unless the object file contains a code object for each of the architectures."""
    found = {arch for arch in map(machine, code_objects(path.read_bytes())) if arch}
    missing = [arch for arch in archs if arch not in found]
    if missing:
        raise ToolchainError(
            f"the library holds no code object for {', '.join(missing)}",
            where=path.name,
            why=f"it holds code for {', '.join(sorted(found))}" if found else "it holds none at all",
        )


def code_objects(data: bytes) -> Iterator[bytes]:
    """Every linked ELF file for AMD GPUs that is found in some bytes, to the end of its table of sections."""
    for found in re.finditer(rb"\x7fELF\x02\x01\x01" + bytes((_ELFOSABI_AMDGPU_HSA,)), data):
        start = found.start()
        kind, number = struct.unpack_from("<HH", data, start + 16)
        (sections,) = struct.unpack_from("<Q", data, start + 40)
        size, count = struct.unpack_from("<HH", data, start + 58)
        if (kind, number) == (3, _EM_AMDGPU):
            yield data[start : start + sections + size * count]


def machine(code_object: bytes) -> str | None:
    """The architecture in the header's flags (EF_AMDGPU_MACH of LLVM's ELF.h), None for an unknown one."""
    (flags,) = struct.unpack_from("<I", code_object, 48)
    return _MACHINES.get(flags & 0xFF)


_MACHINES = {
    **{0x2C: "gfx900", 0x2F: "gfx906", 0x30: "gfx908", 0x3F: "gfx90a", 0x4C: "gfx942", 0x4F: "gfx950"},
    **{0x33: "gfx1010", 0x34: "gfx1011", 0x35: "gfx1012", 0x36: "gfx1030", 0x37: "gfx1031", 0x38: "gfx1032"},
    **{0x39: "gfx1033", 0x3E: "gfx1034", 0x3D: "gfx1035", 0x45: "gfx1036", 0x41: "gfx1100", 0x46: "gfx1101"},
    **{0x47: "gfx1102", 0x44: "gfx1103", 0x43: "gfx1150", 0x4A: "gfx1151", 0x55: "gfx1152", 0x58: "gfx1153"},
    **{0x48: "gfx1200", 0x4E: "gfx1201"},
}
