"""TVM's CUDA runtime in a process of a machine without an NVIDIA driver.

TVM makes a CUDA module with machine code only where `libtvm_runtime_cuda.so` is loaded; without it the module contains CUDA
source, which the process that loads the library must compile.  That runtime needs the driver's libcuda.so.1 and CUDA's
libcudart.so.13, and building calls neither.  Where one is missing, a shared object replaces it that has the same name and the
same functions, each of which returns 100: CUDA_ERROR_NO_DEVICE, which is true.

The object is written here, byte by byte: an ELF file with one segment of code, one for the dynamic section, and a hash
table of one bucket (System V gABI, chapters 4 and 5).
"""

from __future__ import annotations

import ctypes
import os
import platform
import re
import struct
from collections.abc import Sequence
from pathlib import Path

from llmbuild.errors import ToolchainError

NEEDED = {"libcuda.so.1": rb"cu[A-Z]\w+", "libcudart.so.13": rb"cuda[A-Z]\w+"}
"""The libraries that TVM's CUDA runtime is linked with, and the names of the functions that it imports from them."""

_PAGE = 0x10000
"""A multiple of every page size that Linux has on these machines."""

# By machine: ELF's number, code that returns 100, and code that returns the address of the text 16 bytes after it.
_MACHINES = {
    "x86_64": (62, bytes.fromhex("b864000000c3"), bytes.fromhex("488d0509000000c3")),
    "aarch64": (183, struct.pack("<2I", 0x52800C80, 0xD65F03C0), struct.pack("<2I", 0x10000080, 0xD65F03C0)),
}

_kept: list[ctypes.CDLL] = []
"""Libraries that stay loaded as long as the process lives."""


def load_cuda_runtime() -> None:
    """Load TVM's CUDA runtime if it is not loaded, with stand-ins for the libraries that this machine lacks.

    Raises ToolchainError when the runtime is not installed or does not load.
    """
    import tvm_ffi
    from tvm.base import _LOADED_LIBS

    if tvm_ffi.get_global_func("ffi.Module.create.cuda", allow_missing=True) is not None:
        return
    runtime = Path(_LOADED_LIBS["tvm_runtime"]._name).resolve().with_name("libtvm_runtime_cuda.so")
    if not runtime.is_file():
        raise ToolchainError(
            "TVM has no CUDA runtime",
            why=f"{runtime.name} is not beside its other libraries",
            fix="install TVM's wheel from PyPI, or a TVM that was built with USE_CUDA=ON",
        )
    try:
        for name, functions in NEEDED.items():
            _load_or_stand_in(name, runtime, functions)
        _kept.append(ctypes.CDLL(str(runtime), mode=os.RTLD_NOW | os.RTLD_LOCAL))
    except OSError as error:
        raise ToolchainError(
            "TVM's CUDA runtime does not load",
            why=str(error),
            fix="install the NVIDIA driver and CUDA 13, or report this with the version of TVM",
        ) from error


def _load_or_stand_in(name: str, runtime: Path, functions: bytes) -> None:
    try:
        _kept.append(ctypes.CDLL(name))
    except OSError:
        names = {match.decode() for match in re.findall(rb"\0(" + functions + rb")(?=\0)", runtime.read_bytes())}
        image = shared_object(name, sorted(names), platform.machine())
        # A file in memory: it needs no directory that programs may be loaded from, and no removal.
        descriptor = os.memfd_create(name)
        try:
            os.write(descriptor, image)
            _kept.append(ctypes.CDLL(f"/proc/self/fd/{descriptor}"))
        finally:
            os.close(descriptor)


def shared_object(name: str, functions: Sequence[str], machine: str) -> bytes:
    """An ELF shared object with the functions.  Raises ToolchainError for a machine other than x86_64 and aarch64."""
    if machine not in _MACHINES:
        raise ToolchainError(
            f"{name} is not on this machine, and nothing can stand in for it on {machine}",
            why=f"its place can be taken on {' and '.join(_MACHINES)}",
            fix="install the NVIDIA driver and CUDA 13",
        )
    number, refuse, text = _MACHINES[machine]
    strings = b"\0" + b"".join(word.encode() + b"\0" for word in (name, *functions))
    offsets = [strings.index(b"\0" + word.encode() + b"\0") + 1 for word in (name, *functions)]
    count = len(functions) + 1
    # The header and four program headers, then what the dynamic section points to.
    hash_at = 64 + 4 * 56
    symbols_at = _aligned(hash_at + 4 * (3 + count))
    strings_at = symbols_at + 24 * count
    code_at = _aligned(strings_at + len(strings))
    code = refuse.ljust(16, b"\0") + text.ljust(16, b"\0") + b"no CUDA device\0\0"
    # One bucket, and a chain through all symbols: 1, 2, … and the end.
    table = struct.pack(f"<{3 + count}I", 1, count, 1 if functions else 0, 0, *range(2, count), *[0] * bool(functions))
    symbols = bytes(24)
    for function, offset in zip(functions, offsets[1:], strict=True):
        # Functions of the runtime API that return a text must return one: cudaGetErrorName, cudaGetErrorString.
        at = code_at + (16 if re.match(r"cuda\w+Error(Name|String)$", function) else 0)
        symbols += struct.pack("<IBBHQQ", offset, 0x12, 0, 1, at, 16)
    dynamic = b"".join(
        struct.pack("<QQ", tag, value)
        for tag, value in (
            (14, offsets[0]),  # DT_SONAME: the loader compares it with the names of needed libraries.
            (4, hash_at),
            (5, strings_at),
            (6, symbols_at),
            (10, len(strings)),
            (11, 24),
            (0, 0),
        )
    )
    end = code_at + len(code)
    dynamic_at = _aligned(end)
    header = b"\x7fELF" + bytes((2, 1, 1)) + bytes(9)
    header += struct.pack("<HHIQQQIHHHHHH", 3, number, 1, 0, 64, 0, 0, 64, 56, 4, 64, 0, 0)
    address = dynamic_at + _PAGE
    segments = (
        (1, 5, 0, 0, end, _PAGE),  # PT_LOAD, read and execute
        (1, 6, dynamic_at, address, len(dynamic), _PAGE),  # PT_LOAD, read and write
        (2, 6, dynamic_at, address, len(dynamic), 8),  # PT_DYNAMIC
        (0x6474E551, 6, 0, 0, 0, 16),  # PT_GNU_STACK: no executable stack is requested.
    )
    headers = b"".join(
        struct.pack("<IIQQQQQQ", kind, flags, offset, place, place, size, size, align)
        for kind, flags, offset, place, size, align in segments
    )
    image = header + headers + table
    image = image.ljust(symbols_at, b"\0") + symbols + strings
    image = image.ljust(code_at, b"\0") + code
    return image.ljust(dynamic_at, b"\0") + dynamic


def _aligned(offset: int) -> int:
    return (offset + 15) // 16 * 16
