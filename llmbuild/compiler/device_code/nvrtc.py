"""CUDA's compiler as a library, NVRTC, from Python wheels: machine code for one architecture at a time.

`pip install 'llmbuild[cuda]'` brings the wheels: the compiler, headers (of the runtime, its crt and CCCL), and nvFatbin, which
packs the code for several architectures into one fat binary.  No driver, no GPU and no C++ compiler are needed.
The interface is that of nvrtc.h and nvFatbin.h, called through ctypes.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmbuild.compiler.device_code.fatbin import number_of
from llmbuild.compiler.device_code.nvcc import UNUSED
from llmbuild.errors import ToolchainError
from llmbuild.programs.parts import FileTree, Parts

INSTALL = "`pip install 'llmbuild[cuda]'`"

FLAGS = ("--use_fast_math", "-std=c++17", "--device-int128", "--disable-warnings")
"""The same code generation as by nvcc with its flags; -O3 is NVRTC's default."""

_DISTRIBUTIONS = ("nvidia-cuda-nvrtc", "nvidia-cuda-runtime", "nvidia-cuda-crt", "nvidia-cuda-cccl", "nvidia-nvfatbin")

# Headers of the host, and replacements for their declarations.
_HOST_HEADERS = ("#include <cuda.h>",)
_PREAMBLE = """#include <cuda/std/limits>
#ifndef INFINITY
#define INFINITY (::cuda::std::numeric_limits<float>::infinity())
#endif
"""


@dataclass(frozen=True, slots=True)
class Nvrtc:
    """The wheels' compiler; `versions` of the distributions that take part, in their order."""

    versions: tuple[str, ...]
    root: Path
    """The directory with lib and include."""

    @property
    def version(self) -> str:
        return self.versions[0]

    @property
    def identity(self) -> str:
        return "nvrtc {} (runtime {}, crt {}, cccl {}, nvfatbin {})".format(*self.versions)

    @property
    def parts(self) -> Parts:
        """The libraries and headers of the wheels; their versions are written elsewhere."""
        headers = tuple(f"include/{name}" for name in UNUSED)
        return Parts(trees=(FileTree(self.root, ("lib", "include"), headers),), complete=False)

    @property
    def archs(self) -> tuple[str, ...]:
        """The real architectures that it supports, without the variants with a letter."""
        library = _library(self.root, "libnvrtc.so")
        count = ctypes.c_int()
        library.nvrtcGetNumSupportedArchs(ctypes.byref(count))
        numbers = (ctypes.c_int * count.value)()
        library.nvrtcGetSupportedArchs(numbers)
        return tuple(f"sm_{number}" for number in numbers)

    def compile(self, code: str, archs: Sequence[str]) -> bytes:
        """A fat binary with machine code for each of `archs`, and PTX of the newest without a letter, which later ones compile.

        Raises ToolchainError with the compiler's output.
        """
        lines = (line for line in code.splitlines() if line.strip() not in _HOST_HEADERS)
        text = (_PREAMBLE + "\n".join(lines) + "\n").encode()
        newest = f"sm_{max(map(number_of, archs))}"
        wanted = [*archs, *([] if newest in archs else [newest])]
        from concurrent.futures import ThreadPoolExecutor

        # ctypes releases the interpreter's lock during a call, and programs of the library are independent of each other.
        with ThreadPoolExecutor(min(len(wanted), os.cpu_count() or 1)) as pool:
            made = dict(zip(wanted, pool.map(lambda arch: self._program(text, arch), wanted), strict=True))
        return self._pack(
            [*((arch, made[arch][0]) for arch in archs), (newest.replace("sm", "compute"), made[newest][1])]
        )

    def _program(self, text: bytes, arch: str) -> tuple[bytes, bytes]:
        """Machine code for the architecture, and the PTX that it is made of."""
        library = _library(self.root, "libnvrtc.so")

        def call(name: str, *arguments: Any) -> int:
            return int(getattr(library, f"nvrtc{name}")(*arguments))

        program = ctypes.c_void_p()
        _must("NVRTC", call("CreateProgram", ctypes.byref(program), text, b"kernels.cu", 0, None, None))
        try:
            include = self.root / "include"
            options = [f"--gpu-architecture={arch}", *FLAGS, f"-I{include}", f"-I{include / 'cccl'}"]
            given = (ctypes.c_char_p * len(options))(*map(str.encode, options))
            if call("CompileProgram", program, len(options), given) != 0:
                log = _fetched(call, "ProgramLog", program).rstrip(b"\0").decode(errors="replace")
                raise ToolchainError(f"NVRTC failed for {arch}", why=log.strip()[-2000:])
            return _fetched(call, "CUBIN", program), _fetched(call, "PTX", program)
        finally:
            call("DestroyProgram", ctypes.byref(program))

    def _pack(self, made: Sequence[tuple[str, bytes]]) -> bytes:
        library = _library(self.root, "libnvfatbin.so")
        handle = ctypes.c_void_p()
        options = (ctypes.c_char_p * 2)(b"-64", b"-cuda")
        _must("nvFatbin", library.nvFatbinCreate(ctypes.byref(handle), options, 2))
        try:
            for arch, code in made:
                kind, _, number = arch.partition("_")
                size = ctypes.c_size_t(len(code))
                if kind == "sm":
                    failed = library.nvFatbinAddCubin(handle, code, size, number.encode(), b"kernels")
                else:
                    failed = library.nvFatbinAddPTX(handle, code, size, number.encode(), b"kernels", b"")
                _must("nvFatbin", failed)
            size = ctypes.c_size_t()
            _must("nvFatbin", library.nvFatbinSize(handle, ctypes.byref(size)))
            buffer = ctypes.create_string_buffer(size.value)
            _must("nvFatbin", library.nvFatbinGet(handle, buffer))
            return buffer.raw
        finally:
            library.nvFatbinDestroy(ctypes.byref(handle))


def find_nvrtc() -> Nvrtc | None:
    """The wheels on sys.path, or None where none of them is installed.  Raises ToolchainError when some are missing."""
    versions: dict[str, str] = {}
    for name in _DISTRIBUTIONS:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    if "nvidia-cuda-nvrtc" not in versions:
        return None
    if len(versions) < len(_DISTRIBUTIONS):
        lacking = [name for name in _DISTRIBUTIONS if name not in versions]
        raise ToolchainError(
            "CUDA's compiler library is there without what it needs",
            why=f"not installed: {', '.join(lacking)}",
            fix=f"{INSTALL} brings all of them",
        )
    spec = importlib.util.find_spec("nvidia")
    places = [Path(place) / "cu13" for place in (spec and spec.submodule_search_locations) or ()]
    root = next((place for place in places if _named(place, "libnvrtc.so") is not None), None)
    if root is None:
        raise ToolchainError(
            "CUDA's compiler library is not of CUDA 13",
            why=f"nvidia-cuda-nvrtc {versions['nvidia-cuda-nvrtc']} has no nvidia/cu13/lib/libnvrtc.so.13",
            fix=f"{INSTALL} brings it",
        )
    return Nvrtc(tuple(versions[name] for name in _DISTRIBUTIONS), root)


def _named(root: Path, name: str) -> Path | None:
    """The library of that name whose suffix is its major version."""
    return next(iter(sorted((root / "lib").glob(f"{name}.[0-9]*"))), None)


_loaded: dict[Path, ctypes.CDLL] = {}


def _library(root: Path, name: str) -> ctypes.CDLL:
    path = _named(root, name)
    if path is None:
        raise ToolchainError(f"{name} is not in {root / 'lib'}", fix=f"reinstall it: {INSTALL}")
    if path not in _loaded:
        # NVRTC looks up its built-in headers' library by name: one that is loaded already is found.
        for builtins in sorted((root / "lib").glob(name.replace(".so", "-builtins.so") + ".*")):
            ctypes.CDLL(str(builtins))
        _loaded[path] = ctypes.CDLL(str(path))
    return _loaded[path]


def _fetched(call: Callable[..., int], name: str, program: ctypes.c_void_p) -> bytes:
    """The result of nvrtcGet<name>Size and nvrtcGet<name>."""
    size = ctypes.c_size_t()
    _must("NVRTC", call(f"Get{name}Size", program, ctypes.byref(size)))
    buffer = ctypes.create_string_buffer(size.value)
    _must("NVRTC", call(f"Get{name}", program, buffer))
    return buffer.raw


def _must(library: str, code: int) -> None:
    if code != 0:
        raise ToolchainError(f"{library} failed with its error {code}", fix=f"reinstall it: {INSTALL}")
