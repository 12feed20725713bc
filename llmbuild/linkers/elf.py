"""ELF shared objects, for Linux and Android.

Where the triple is this machine's, the machine's C compiler links: the target's (`link.compiler`), or $CC, or the first
of cc, gcc and clang.  For another machine it is LLVM's linker, from the `ziglang` package or PATH, and else a cross
compiler of the distribution (aarch64-linux-gnu-gcc); for Android the NDK's clang where $ANDROID_NDK names one.

LLVM's linker has no C library of the other machine, and needs none: empty stand-ins called libc and libm make it record which
libraries are needed at run time, and undefined symbols are compared with those that these libraries and TVM provide.

The link runs in a scratch directory on relative file names, without build id: its bytes depend on the objects and the
tool alone.  Linux libraries have no soname: two models can be loaded into one process.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from llmbuild.canonical import Json
from llmbuild.errors import ToolchainError, UsageError
from llmbuild.linkers import symbols, tools
from llmbuild.linkers.tools import Triple
from llmbuild.programs.parts import Parts
from llmbuild.programs.run import Tool, compiler_of, run_tool
from llmbuild.programs.zig import zig

CANDIDATES = ("cc", "gcc", "clang")
NAME = "lib.so"

EMULATIONS: Mapping[str, str] = {
    "x86_64": "elf_x86_64",
    "aarch64": "aarch64linux",
    "armv7a": "armelf_linux_eabi",
    "riscv64": "elf64lriscv",
}
"""LLD's names of its emulations, by architecture."""

PAGE_SIZE = 16384
"""Android 15 loads only libraries that are aligned for pages of 16 KiB on devices that have such."""

API_LEVEL = 24
"""Android 7: the API level that the NDK's clang targets when the triple names none."""

NDK_VARIABLES = ("ANDROID_NDK", "ANDROID_NDK_HOME", "ANDROID_NDK_ROOT")

_UNDEFINED = re.compile(r"undefined symbol: (\S+)")


def carries_name(link: Mapping[str, Json]) -> bool:
    """Whether the file contains its own name: Android's libraries do, as soname."""
    triple = tools.triple_of(link)
    return triple is not None and triple.android


def identity(link: Mapping[str, Json]) -> str:
    """The tool's base name and version; for the NDK its revision too."""
    return tools.identity(find(link))


def parts(link: Mapping[str, Json]) -> Parts:
    """The files of the tool that determine its output."""
    return tools.parts(find(link), link)


def find(link: Mapping[str, Json]) -> Tool:
    """The tool that links for the triple, with the variables that the target adds.

    Raises ToolchainError when there is none, with how to get one.
    """
    return replace(_find(link), variables=tools.variables_of(link))


def _find(link: Mapping[str, Json]) -> Tool:
    triple = tools.triple_of(link)
    linker = link.get("linker")
    words = compiler_of(link)
    if words is not None:
        return _named(words, "the target's link.compiler")
    if linker not in (None, "cc", "lld", "zig", "ndk"):
        raise UsageError(f"'{linker}' links no shared object (.so)", fix="choose cc, lld, zig or ndk, or leave it out")
    native = tools.fits_this_machine(triple)
    tool = None
    if linker in (None, "ndk") and triple is not None and triple.android:
        tool = _ndk(triple)
    if linker in (None, "cc") and native:
        tool = _native()
    if tool is None and linker in (None, "lld", "zig"):
        tool = zig("ld.lld") if linker == "zig" else _lld()
    if tool is None and linker in (None, "cc") and triple is not None and not native and not triple.android:
        tool = _cross_gcc(triple)
    return tool or _none(triple, linker)


def link(link: Mapping[str, Json], objects: Sequence[Path], out: Path, scratch: Path, _prefix: str, name: str) -> None:
    """Link `objects` into `out`; `name` becomes the soname on Android.  `link.flags` are appended to the command.

    Raises ToolchainError with the tool's output, or with the symbols that no library of the target provides.
    """
    tool = find(link)
    triple = tools.triple_of(link)
    names = tools.copy_objects(objects, scratch)
    android = triple is not None and triple.android
    soname = ["-soname", name or NAME, "-z", f"max-page-size={PAGE_SIZE}"] if android else []
    # The library is loaded into a process that has loaded TVM's runtime already: its symbols stay undefined here.
    if tool.kind == "lld":
        _run_lld(tool, triple, link, [*soname, *names], scratch)
    else:
        driven = [f"-Wl,{soname[0]},{soname[1]}", f"-Wl,-z,{soname[3]}"] if soname else []
        common = ["-shared", "-Wl,--build-id=none", "-Wl,-z,noexecstack", *driven, "-o", NAME]
        run_tool(
            tool,
            [*common, *names, *tools.flags_of(link), "-lm"],
            scratch,
            makes=NAME,
            fix=f"check that {Path(tool.command[0]).name} can link for this target, or set CC to one that can",
        )
    shutil.move(scratch / NAME, out)


def _run_lld(
    tool: Tool, triple: Triple | None, link: Mapping[str, Json], arguments: Sequence[str], scratch: Path
) -> None:
    arch = triple.arch if triple is not None else os.uname().machine
    emulation = EMULATIONS.get(arch)
    if emulation is None:
        raise UsageError(f"no linker for ELF on '{arch}'", fix=f"one of {', '.join(EMULATIONS)}")
    stubs = []
    for library in _needed(triple, link):
        (scratch / "none.a").write_bytes(b"!<arch>\n")
        made = ["-m", emulation, "-shared", "-soname", library, "-o", library, "none.a"]
        run_tool(tool, made, scratch, makes=library)
        stubs.append(library)
    said = run_tool(
        tool,
        [
            *("-m", emulation, "-shared", "-o", NAME, "--build-id=none", "--hash-style=both", "--eh-frame-hdr"),
            *("-z", "noexecstack", "-z", "defs", "--warn-unresolved-symbols", "--no-as-needed"),
            *arguments,
            *stubs,
            *tools.bare_flags_of(link),
        ],
        scratch,
        makes=NAME,
    )
    provided = {
        *symbols.TVM_FFI,
        *symbols.TVM_RUNTIME,
        *symbols.MEMORY,
        *symbols.MATH,
        *symbols.GNU_MATH,
        *symbols.LINUX,
    }
    missing = sorted(set(_UNDEFINED.findall(said)) - provided)
    if missing:
        raise ToolchainError(
            f"nothing on the target provides {', '.join(missing)}",
            why="the objects call functions that are neither TVM's nor of the C library",
            fix="link a library that has them with the target's link.flags",
        )


def _needed(triple: Triple | None, link: Mapping[str, Json]) -> list[str]:
    """The file names of the libraries that the loader brings in: `link.needed`, by default C and mathematics."""
    needed = link.get("needed", ["c", "m"])
    if isinstance(needed, str) or not isinstance(needed, Sequence):
        raise TypeError(f"link.needed is a list of names, not {needed!r}")
    glibc = triple is None or not (triple.android or triple.environment.startswith("musl"))
    return [f"lib{name}.so.6" if glibc and name in ("c", "m") else f"lib{name}.so" for name in needed]


def _native() -> Tool | None:
    asked = os.environ.get("CC", "").strip()
    if not asked:
        return tools.on_path(CANDIDATES, "cc")
    try:
        # Several words in it are a convention of make.
        words = shlex.split(asked)
    except ValueError as error:
        raise ToolchainError(
            "$CC is no command", why=f"{asked}: {error}", fix="set it to a C compiler, or unset it"
        ) from error
    return _named(words, "$CC")


def _named(words: Sequence[str], origin: str) -> Tool:
    path = shutil.which(words[0]) if words else None
    if path is None:
        raise ToolchainError(
            f"the C compiler '{words[0] if words else ''}' is not on PATH",
            why=f"{origin} names it to link the shared object",
            fix=f"install it, or change {origin}",
        )
    return Tool((path, *words[1:]), "cc")


def _lld() -> Tool | None:
    return zig("ld.lld") or tools.lld("ld.lld")


def _cross_gcc(triple: Triple) -> Tool | None:
    return tools.on_path((f"{triple.arch}-linux-{triple.environment or 'gnu'}-gcc",), "cc")


def _ndk(triple: Triple) -> Tool | None:
    """The NDK's clang, when a variable names an NDK; a variable that names none is an error and not skipped."""
    for variable in NDK_VARIABLES:
        root = os.environ.get(variable, "").strip()
        if not root:
            continue
        found = sorted(Path(root).glob("toolchains/llvm/prebuilt/*/bin/clang"))
        if not found:
            raise ToolchainError(
                f"${variable} names no Android NDK",
                why="there is no toolchains/llvm/prebuilt/*/bin/clang in it",
                fix=f"set it to the NDK's directory, or unset it: {tools.CROSS}",
            )
        system = triple.environment if triple.environment.startswith("android") else triple.system
        name = system if system[-1].isdigit() else f"{system}{API_LEVEL}"
        target = f"--target={triple.arch}-linux-{name}"
        return Tool((str(found[0]), target), "cc", called=f"NDK {_revision(Path(root))} clang {target}")
    return None


def _revision(root: Path) -> str:
    try:
        text = (root / "source.properties").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "(unknown revision)"
    found = re.search(r"^Pkg\.Revision\s*=\s*(\S+)", text, re.MULTILINE)
    return found[1] if found else "(unknown revision)"


def _none(triple: Triple | None, linker: Json) -> Tool:
    if triple is None or (tools.fits_this_machine(triple) and linker in (None, "cc")):
        raise ToolchainError(
            "no C compiler on PATH",
            why="a shared object is linked with one of " + ", ".join(CANDIDATES),
            fix="install one (Debian, Ubuntu: `apt install gcc`; Fedora: `dnf install gcc`; Alpine: "
            f"`apk add gcc musl-dev`), or set CC to the one to use; {tools.CROSS}",
        )
    system, gcc = ("Android", "the NDK") if triple.android else ("Linux", f"{triple.arch}-linux-gnu-gcc")
    raise ToolchainError(
        f"no linker for {triple.arch} {system}",
        why=tools.asked_for(linker) or f"neither zig nor LLVM's ld.lld nor {gcc} is here",
        fix=f"{tools.CROSS} (Debian, Ubuntu: `apt install lld`)"
        + ("; or set ANDROID_NDK to the NDK's directory" if triple.android else ""),
    )
