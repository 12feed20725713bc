"""WebAssembly modules for WebLLM, linked by Emscripten: a model's objects and TVM's runtime in one file.

The JavaScript that loads a module (WebLLM and tvmjs alike) fixes what it may import: every link is verified against that list,
since a further import fails only in the browser, after the download.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from llmbuild.canonical import Json
from llmbuild.emscripten import toolchain
from llmbuild.errors import ToolchainError
from llmbuild.linkers import tools
from llmbuild.programs.parts import Parts
from llmbuild.programs.run import Tool, compiler_of

NAME = "lib.wasm"
WASI = "wasi_snapshot_preview1"
IMPORT_SECTION = 2

IMPORTS = frozenset(
    {
        *(("env", name) for name in ("TVMFFIWasmSafeCall", "TVMFFIWasmFunctionDeleter")),
        ("env", "emscripten_notify_memory_growth"),
        *((WASI, f"fd_{name}") for name in ("write", "read", "close", "seek")),
        *((WASI, name) for name in ("clock_time_get", "proc_exit", "environ_sizes_get", "environ_get")),
    }
)
"""The functions that the JavaScript side provides."""

FLAGS = (
    # The objects are optimized already: a higher level has wasm-opt work on all of them again, for half a minute or more.
    "-O1",
    "-Wl,--strip-all",
    "--no-entry",
    "-sWASM_BIGINT=1",
    "-sSTANDALONE_WASM=1",
    "-sALLOW_MEMORY_GROWTH=1",
    "-sINITIAL_MEMORY=167772160",
    # What JavaScript provides is undefined here; `check_imports` rejects all else.
    "-sERROR_ON_UNDEFINED_SYMBOLS=0",
    "-sWARN_ON_UNDEFINED_SYMBOLS=0",
)


def carries_name(_: Mapping[str, Json]) -> bool:
    """A module has no name of its own."""
    return False


def find(link: Mapping[str, Json]) -> Tool:
    """emcc, as the target names it and with the variables that the target adds.  Raises ToolchainError."""
    return replace(toolchain.find(compiler_of(link)), variables=tools.variables_of(link))


def identity(link: Mapping[str, Json]) -> str:
    """`emcc 3.1.6`.  Raises ToolchainError when there is no Emscripten."""
    return toolchain.identity_of(find(link))


def parts(link: Mapping[str, Json]) -> Parts:
    """The files of the tool that determine its output."""
    return toolchain.parts(find(link), tools.flags_of(link))


def link(link: Mapping[str, Json], objects: Sequence[Path], out: Path, scratch: Path, _prefix: str, _name: str) -> None:
    """Link the objects of the model and of the runtime into `out`; `link.flags` are appended to the command.

    Raises ToolchainError with emcc's output when it fails, and when the module imports what no browser runtime has.
    """
    names = tools.copy_objects(objects, scratch)
    emcc = find(link)
    arguments = [*FLAGS, "-o", NAME, *names, *tools.flags_of(link)]
    said = toolchain.run(emcc, arguments, scratch, NAME)
    if said:
        print(said)
    check_imports((scratch / NAME).read_bytes(), toolchain.identity_of(emcc))
    shutil.move(scratch / NAME, out)


def check_imports(module: bytes, tool: str = "Emscripten") -> None:
    """Raise ToolchainError for an invalid module, and for one that imports what the JavaScript side does not provide."""
    try:
        found = set(imports(module))
    except (ValueError, IndexError) as error:
        raise ToolchainError(
            f"{tool} made no WebAssembly module",
            where=NAME,
            why=str(error),
            fix="check that it is Emscripten's compiler",
        ) from error
    further = sorted(found - IMPORTS)
    if further:
        named = ", ".join(f"{place}.{name}" for place, name in further)
        raise ToolchainError(
            f"the module needs functions that no browser runtime provides: {named}",
            why=f"{tool} left them undefined; WebLLM refuses such a module when it is loaded",
            fix="remove what adds them from [link] flags, or use another release of Emscripten (3.1.6 is known to work)",
        )


def imports(module: bytes) -> Iterator[tuple[str, str]]:
    """Module and name of everything that a WebAssembly module imports (WebAssembly core specification, section 5.5).

    Raises ValueError for bytes that are no module.
    """
    if module[:8] != b"\0asm\1\0\0\0":
        raise ValueError("not a WebAssembly module of version 1")
    reader = _Reader(module, 8)
    while reader.at < len(module):
        section, size = reader.byte(), reader.number()
        end = reader.at + size
        if section == IMPORT_SECTION:
            for _ in range(reader.number()):
                yield reader.text(), reader.text()
                reader.skip_description()
        reader.at = end


class _Reader:
    """Reads the encoding of WebAssembly from an offset on."""

    def __init__(self, data: bytes, at: int) -> None:
        self.data = data
        self.at = at

    def byte(self) -> int:
        self.at += 1
        return self.data[self.at - 1]

    def number(self) -> int:
        """An unsigned LEB128 number."""
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    def text(self) -> str:
        size = self.number()
        self.at += size
        return self.data[self.at - size : self.at].decode()

    def skip_description(self) -> None:
        """The kind of an import: a function's type, a table, a memory, a global or an exception's tag."""
        kind = self.byte()
        if kind == 0:
            self.number()
        elif kind in (1, 2):
            if kind == 1:
                self.byte()
            for _ in range(1 + (self.byte() & 1)):
                self.number()
        elif kind in (3, 4):
            self.byte()
            self.number()
        else:
            raise ValueError(f"an import of the unknown kind {kind}")
