"""Mach-O dynamic libraries, for macOS and Mac Catalyst.

On a Mac, Xcode's clang links.  Elsewhere it is LLVM's ld64.lld, from PATH or a directory of Debian's, and without it the
`ziglang` package's C compiler, which has a linker for Mach-O of its own.

The file contains its own name: as install name under @rpath, and in the code signature that Apple silicon requires (an ad-hoc
one, of hashes alone).  So the name is an argument here and the link is made under it, in a scratch directory on relative
file names: the bytes depend on the objects, the tool and the name.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from llmbuild.canonical import Json
from llmbuild.errors import ToolchainError, UsageError
from llmbuild.linkers import symbols, tools
from llmbuild.linkers.tools import Triple
from llmbuild.programs.parts import Parts
from llmbuild.programs.run import Tool, run_tool
from llmbuild.programs.zig import zig

NAME = "lib.dylib"

ARCHITECTURES: Mapping[str, str] = {"aarch64": "arm64", "x86_64": "x86_64"}
"""Apple's names."""

OLDEST: Mapping[str, str] = {"macos": "11.0", "mac-catalyst": "14.0"}
"""The first releases for Apple silicon, where neither the target nor its triple names one."""

SYSTEM = "libSystem.tbd"


def carries_name(_: Mapping[str, Json]) -> bool:
    """Its install name does."""
    return True


def identity(link: Mapping[str, Json]) -> str:
    """The tool's base name and version."""
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
    linker = link.get("linker")
    target(link)
    if linker is None:
        return _xcode() or tools.lld("ld64.lld") or zig("cc", "zig") or _none(linker)
    if linker in ("xcode", "cc"):
        return _xcode() or _none(linker)
    if linker in ("lld", "zig"):
        return (zig("cc", "zig") if linker == "zig" else tools.lld("ld64.lld")) or _none(linker)
    raise UsageError(f"'{linker}' links no .dylib", fix="choose xcode, lld or zig, or leave it out")


def link(link: Mapping[str, Json], objects: Sequence[Path], out: Path, scratch: Path, _prefix: str, name: str) -> None:
    """Link `objects` into `out`, with the install name `@rpath/<name>`.  Raises ToolchainError with the tool's output."""
    name = name or NAME
    tool = find(link)
    arch, system, oldest = target(link)
    names = tools.copy_objects(objects, scratch)
    install = ["-install_name", f"@rpath/{name}"]
    # -S: a debug map would name the objects by their full paths and times.
    flags = tools.bare_flags_of(link) if tool.kind == "lld" else tools.flags_of(link)
    if tool.kind == "lld":
        (scratch / SYSTEM).write_text(system_stub(), encoding="ascii")
        allowed = [word for symbol in (*symbols.TVM_FFI, *symbols.TVM_RUNTIME) for word in ("-U", f"_{symbol}")]
        platform = ["-arch", arch, "-platform_version", system, oldest, oldest]
        run_tool(
            tool,
            ["-dylib", *platform, *install, "-adhoc_codesign", "-S", *allowed, "-o", name, *names, SYSTEM, *flags],
            scratch,
            makes=name,
            fix="the objects may call only functions of TVM and of libSystem",
        )
    else:
        words = ["-Wl,-undefined,dynamic_lookup", "-Wl,-S", *(f"-Wl,{install[0]},{word}" for word in install[1:])]
        if tool.kind == "zig":
            zig_arch = "aarch64" if arch == "arm64" else arch
            driver = [
                "-target",
                f"{zig_arch}-{system.replace('-', '')}.{oldest}",
                "-shared",
            ]
            environment = tools.zig_environment(scratch)
        else:
            release = f"macosx{oldest}" if system == "macos" else f"ios{oldest}-macabi"
            driver = ["-target", f"{arch}-apple-{release}", "-dynamiclib"]
            environment = {"ZERO_AR_DATE": "1"}
        run_tool(tool, [*driver, *words, "-o", name, *names, *flags], scratch, environment, makes=name)
    shutil.move(scratch / name, out)


def target(link: Mapping[str, Json]) -> tuple[str, str, str]:
    """Apple's name of the architecture, the platform ("macos", "mac-catalyst") and the oldest release of it to run on."""
    triple = tools.triple_of(link)
    if triple is None:
        raise UsageError("a .dylib needs a triple", fix='such as "arm64-apple-macosx13.0.0"')
    arch = ARCHITECTURES.get(triple.arch)
    system = _system(triple)
    if arch is None or system is None:
        raise UsageError(
            f"no .dylib for '{link['triple']}'", fix="macOS and Mac Catalyst on arm64 and x86_64 have them"
        )
    named = re.search(r"\d+(\.\d+)*", triple.system)
    oldest = link.get("minimum-os") or (
        named[0] if named and not triple.system.startswith("darwin") else OLDEST[system]
    )
    return arch, system, ".".join((*str(oldest).split("."), "0")[:2])


def _system(triple: Triple) -> str | None:
    if triple.system.startswith(("macos", "darwin")):
        return "macos"
    return "mac-catalyst" if triple.environment == "macabi" else None


def system_stub() -> str:
    """The description of /usr/lib/libSystem.B.dylib that ld64.lld requires, in Apple's text format for it (TAPI, version 4).

    Only functions that compiled code calls by itself are in it; with the real one's symbols the link is the same.
    """
    targets = ", ".join(f"{arch}-{system}" for arch in ARCHITECTURES.values() for system in ("macos", "maccatalyst"))
    provided = sorted({*symbols.MEMORY, *symbols.MATH, *symbols.APPLE} - {"dyld_stub_binder"})
    names = ", ".join(("dyld_stub_binder", *(f"_{name}" for name in provided)))
    return f"""--- !tapi-tbd
tbd-version: 4
targets: [ {targets} ]
install-name: '/usr/lib/libSystem.B.dylib'
exports:
  - targets: [ {targets} ]
    symbols: [ {names} ]
...
"""


def _xcode() -> Tool | None:
    path = shutil.which("xcrun") if sys.platform == "darwin" else None
    return None if path is None else Tool((path, "-sdk", "macosx", "clang"), "xcode", called="xcode clang")


def _none(linker: Json) -> Tool:
    on_a_mac = sys.platform == "darwin"
    raise ToolchainError(
        "no linker for macOS",
        why=tools.asked_for(linker)
        or ("neither Xcode's clang nor zig is here" if on_a_mac else "neither LLVM's ld64.lld nor zig is here"),
        fix="`xcode-select --install`" if on_a_mac else f"{tools.CROSS} (Debian, Ubuntu: `apt install lld`)",
    )
