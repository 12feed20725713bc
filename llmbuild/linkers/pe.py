"""Windows DLLs.

For triples of MSVC's conventions (x86_64-pc-windows-msvc) LLVM's lld-link links, from the `ziglang` package or PATH; on
Windows link.exe, where a developer's command prompt put it on PATH.  Nothing of Microsoft's toolchain is needed: the objects
themselves list their exports, and import libraries of the three DLLs that they call are made here from lists of symbols:
tvm_ffi.dll, the C runtime of Windows 10 (ucrtbase.dll) and ntdll.dll (the probe of large stack frames).

For those of MinGW's (x86_64-pc-windows-gnu) code calls functions that Windows lacks (sincosf), so that a linker alone does not
suffice: the tool is zig as a C compiler, which brings LLVM's own runtime (and compiles it at its first use), or MinGW's gcc.

The DLL's file name is in its export table: an argument here.  No file contains a time: it is a content hash, or zero.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from llmbuild.canonical import Json
from llmbuild.errors import ToolchainError, UsageError
from llmbuild.linkers import symbols, tools
from llmbuild.linkers.import_library import MACHINES, write_import_library
from llmbuild.linkers.tools import Triple
from llmbuild.programs.parts import Parts
from llmbuild.programs.run import Tool, compiler_of, run_tool
from llmbuild.programs.zig import zig

NAME = "lib.dll"

IMPORTS: Mapping[str, Sequence[str]] = {
    "tvm_ffi.dll": symbols.TVM_FFI,
    "ucrtbase.dll": (*symbols.MEMORY, *symbols.MATH),
    "ntdll.dll": ("__chkstk",),
}
"""The DLLs that a library may call, and the functions of each."""

MACHINE_NAMES: Mapping[str, str] = {"x86_64": "x64", "aarch64": "arm64"}


def carries_name(_: Mapping[str, Json]) -> bool:
    """Its table of exports does."""
    return True


def identity(link: Mapping[str, Json]) -> str:
    """The tool's base name and version."""
    tool = find(link)
    if tool.kind == "msvc":
        # link.exe has no option that prints its version: the directory of its release names it.
        return f"link.exe: MSVC {os.environ.get('VCTOOLSVERSION') or 'unknown'}"
    return tools.identity(tool)


def parts(link: Mapping[str, Json]) -> Parts:
    """The files of the tool that determine its output."""
    return tools.parts(find(link), link)


def find(link: Mapping[str, Json]) -> Tool:
    """The tool that links for the triple, with the variables that the target adds.

    Raises ToolchainError when there is none, with how to get one.
    """
    return replace(_find(link), variables=tools.variables_of(link))


def _find(link: Mapping[str, Json]) -> Tool:
    triple = _triple(link)
    linker = link.get("linker")
    if (words := compiler_of(link)) is not None:
        named = tools.on_path(words[:1], "mingw")
        return replace(named, command=(*named.command, *words[1:])) if named is not None else _none(triple, linker)
    if triple.environment.startswith("gnu"):
        if linker is None:
            return zig("cc", "zig") or _mingw(triple) or _none(triple, linker)
        if linker in ("mingw", "zig"):
            return (_mingw(triple) if linker == "mingw" else zig("cc", "zig")) or _none(triple, linker)
        raise UsageError(
            f"'{linker}' does not link a .dll for '{link['triple']}'",
            fix=f"choose mingw or zig, or the triple {triple.arch}-pc-windows-msvc",
        )
    if linker is None:
        return _msvc() or _lld() or _none(triple, linker)
    if linker in ("msvc", "lld", "zig"):
        tool = _msvc() if linker == "msvc" else zig("lld-link") if linker == "zig" else _lld()
        return tool or _none(triple, linker)
    raise UsageError(
        f"'{linker}' does not link a .dll for '{link['triple']}'",
        fix=f"choose msvc, lld or zig, or the triple {triple.arch}-pc-windows-gnu",
    )


def link(link: Mapping[str, Json], objects: Sequence[Path], out: Path, scratch: Path, _prefix: str, name: str) -> None:
    """Link `objects` into `out`, a DLL that calls itself `name`.  Raises ToolchainError with the tool's output."""
    name = name or NAME
    tool = find(link)
    triple = _triple(link)
    names = tools.copy_objects(objects, scratch)
    flags = tools.flags_of(link)
    imports = [] if tool.kind == "mingw" else [_import_library(tool, triple, dll, scratch) for dll in IMPORTS]
    if tool.kind in ("lld", "msvc"):
        arguments = [
            *("/nologo", "/dll", "/noentry", f"/machine:{MACHINE_NAMES[triple.arch]}", "/nodefaultlib", "/brepro"),
            # MSVC's compilers refer to it in code with floating point numbers; its address is never read.
            "/alternatename:_fltused=__ImageBase",
            f"/out:{name}",
            *(*names, *imports, *flags),
        ]
        # Both would add the options in these variables to the command.
        environment = {"LINK": "", "_LINK_": ""}
        run_tool(
            tool,
            arguments,
            scratch,
            environment,
            makes=name,
            fix="the objects may call only functions of TVM and of Windows' C runtime",
        )
    elif tool.kind == "zig":
        driver = ["-target", f"{triple.arch}-windows-gnu", "-shared", "-s", "-nostdlib", "-rtlib=compiler-rt"]
        environment = {**tools.zig_environment(scratch), "SOURCE_DATE_EPOCH": "0"}
        run_tool(
            tool, [*driver, "-Wl,--no-entry", "-o", name, *names, *imports, *flags], scratch, environment, makes=name
        )
    else:
        library = _mingw_import_library(tool, triple, scratch)
        stable = ["-shared", "-s", "-Wl,--no-insert-timestamp", "-Wl,--export-all-symbols"]
        run_tool(tool, [*stable, "-o", name, *names, library, *flags], scratch, makes=name)
    shutil.move(scratch / name, out)


def _import_library(tool: Tool, triple: Triple, dll: str, scratch: Path) -> str:
    """Write the import library of one DLL; returns its file name."""
    library = f"{dll.removesuffix('.dll')}.lib"
    if tool.kind in ("lld", "zig"):
        (scratch / library).write_bytes(write_import_library(dll, IMPORTS[dll], triple.arch))
    else:
        definition = _definition(dll, scratch)
        machine = f"/machine:{MACHINE_NAMES[triple.arch]}"
        run_tool(tool, ["/lib", "/nologo", f"/def:{definition}", machine, f"/out:{library}"], scratch, makes=library)
    return library


def _mingw_import_library(tool: Tool, triple: Triple, scratch: Path) -> str:
    """GNU's linker requires the whole import table in the library, as its own dlltool writes it."""
    dlltool = tools.on_path((f"{triple.arch}-w64-mingw32-dlltool", "dlltool"), "dlltool")
    if dlltool is None:
        raise ToolchainError(
            "MinGW's dlltool is not on PATH",
            why=f"{tool.name} needs an import library of tvm_ffi.dll",
            fix="Debian, Ubuntu: `apt install binutils-mingw-w64`",
        )
    definition = _definition("tvm_ffi.dll", scratch)
    # Without a fixed prefix the symbols inside are named after the process id.
    prefix = ["--temp-prefix", "tvm_ffi"]
    library = "libtvm_ffi.a"
    run_tool(dlltool, ["--deterministic-libraries", *prefix, "-d", definition, "-l", library], scratch, makes=library)
    return library


def _definition(dll: str, scratch: Path) -> str:
    lines = [f"LIBRARY {dll}", "EXPORTS", *sorted(IMPORTS[dll])]
    name = f"{dll.removesuffix('.dll')}.def"
    (scratch / name).write_text("\n".join(lines) + "\n", encoding="ascii")
    return name


def _triple(link: Mapping[str, Json]) -> Triple:
    triple = tools.triple_of(link)
    if triple is None or not triple.system.startswith("windows") or triple.arch not in MACHINES:
        raise UsageError(
            f"no .dll for '{link.get('triple') or 'no triple'}'", fix='a triple such as "x86_64-pc-windows-msvc"'
        )
    return triple


def _lld() -> Tool | None:
    return zig("lld-link") or tools.lld("lld-link")


def _msvc() -> Tool | None:
    """Microsoft's linker.  Other programs are called link.exe too, so the variable of a developer's prompt must be set."""
    if sys.platform != "win32" or not os.environ.get("VCTOOLSINSTALLDIR"):
        return None
    return tools.on_path(("link.exe",), "msvc")


def _mingw(triple: Triple) -> Tool | None:
    return tools.on_path((f"{triple.arch}-w64-mingw32-gcc", f"{triple.arch}-w64-mingw32-clang"), "mingw")


def _none(triple: Triple, linker: Json) -> Tool:
    gnu = triple.environment.startswith("gnu")
    other = "MinGW's gcc" if gnu else "LLVM's lld-link"
    raise ToolchainError(
        f"no linker for {triple.arch} Windows",
        why=tools.asked_for(linker) or f"neither zig nor {other} is here",
        fix=f"{tools.CROSS} (Debian, Ubuntu: `apt install {'gcc-mingw-w64-x86-64' if gnu else 'lld'}`)",
    )
