"""Linking tools of this machine: how they are found and named, and the part of a target that linkers read.

A tool is looked up on PATH, or where a distribution installs it (Debian keeps some names of LLVM's linker in
/usr/lib/llvm-<version>/bin).  Its identity is its name and its version without a path: it is part of a link action's key.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from llmbuild.canonical import Json
from llmbuild.errors import UsageError
from llmbuild.home import user_directory
from llmbuild.programs.parts import Parts, driver_parts, program_parts
from llmbuild.programs.run import Tool, ask_tool
from llmbuild.programs.zig import zig_parts

CROSS = "`pip install 'llmbuild[cross]'` brings a linker for ELF, Mach-O and Windows"
"""The advice for every linker that the extra can replace."""

DEBIAN = Path("/usr/lib")
"""Where Debian has LLVM's programs, in llvm-<version>/bin, besides those on PATH."""

LLD_NAMES = ("ld.lld", "ld64.lld", "lld-link")
"""One program under three names: it links for ELF, Mach-O or Windows by the name that it is called by."""


@dataclass(frozen=True, slots=True)
class Triple:
    """A target triple, taken apart: `arm64-apple-ios17.0.0-macabi` is arm64, apple, ios17.0.0, macabi."""

    arch: str
    system: str
    environment: str

    @property
    def android(self) -> bool:
        return "android" in (self.system + self.environment)


ARCHITECTURES: Mapping[str, str] = {"amd64": "x86_64", "arm64": "aarch64", "x64": "x86_64"}
"""Other spellings of an architecture."""


def triple_of(link: Mapping[str, Json]) -> Triple | None:
    """The triple of a link part, None when it names none: then the target is this machine."""
    text = link.get("triple")
    if text is None:
        return None
    words = str(text).lower().split("-")
    if re.fullmatch(r"[\w.-]+", str(text), re.ASCII) is None:
        # A cross compiler is called after it: a path in it would be the path of a program.
        raise UsageError(f"'{text}' is no triple", fix="a triple such as x86_64-linux-gnu")
    # The vendor may be left out: aarch64-linux-gnu, x86_64-windows-msvc.
    known = ("linux", "windows", "macos", "ios", "darwin", "android")
    at = next((index for index, word in enumerate(words) if index and word.startswith(known)), None)
    if at is None:
        raise UsageError(
            f"'{text}' names no system that a library is linked for", fix="a triple such as x86_64-linux-gnu"
        )
    return Triple(ARCHITECTURES.get(words[0], words[0]), words[at], "-".join(words[at + 1 :]))


def fits_this_machine(triple: Triple | None) -> bool:
    """Whether the C compiler of this machine makes programs for the triple."""
    if triple is None:
        return True
    machine = os.uname().machine.lower()
    return (
        triple.arch == ARCHITECTURES.get(machine, machine)
        and triple.system.startswith(sys.platform)
        and not triple.android
        and not triple.environment.startswith("musl")
    )


def flags_of(link: Mapping[str, Json]) -> list[str]:
    """`link.flags`: the words that the target appends to the command."""
    flags = link.get("flags") or ()
    if isinstance(flags, str) or not isinstance(flags, Sequence):
        raise TypeError(f"link.flags is a list of words, not {flags!r}")
    return [str(flag) for flag in flags]


def bare_flags_of(link: Mapping[str, Json]) -> list[str]:
    """The same for a linker that no compiler drives: `-Wl,-z,now` is `-z now`, so that one target file does for both."""
    found: list[str] = []
    for flag in flags_of(link):
        found += flag.removeprefix("-Wl,").split(",") if flag.startswith("-Wl,") else [flag]
    return found


def asked_for(linker: Json) -> str | None:
    """The reason why no other tool was used: the target names this one."""
    return None if linker is None else f"the target's link.linker is '{linker}', which is not here"


def on_path(names: Sequence[str], kind: str) -> Tool | None:
    """The first of the commands that is on PATH."""
    for name in names:
        path = shutil.which(name)
        if path is not None:
            return Tool((path,), kind)
    return None


def lld(name: str) -> Tool | None:
    """LLVM's linker under one of LLD_NAMES, from PATH or a directory of Debian's.  It may be installed under another name."""
    path = shutil.which(name)
    if path is not None:
        return Tool((path,), "lld")
    other = next((path for other in LLD_NAMES if (path := shutil.which(other))), None)
    if other is not None and os.name == "posix":
        return Tool((name,), "lld", executable=other)
    places = sorted(DEBIAN.glob("llvm-*/bin"), key=_version_of, reverse=True)
    return next((Tool((str(place / name),), "lld") for place in places if (place / name).is_file()), None)


def _version_of(place: Path) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", place.parent.name))


def identity(tool: Tool) -> str:
    """The tool's name and its version, or the first line of its output.  Raises ToolchainError when it does not run."""
    version = tool.version or ask_tool(tool, "--version").partition("\n")[0].strip()
    return f"{tool.name}: {version}" if version else tool.name


def parts(tool: Tool, link: Mapping[str, Json]) -> Parts:
    """The files that determine the tool's output for a link part."""
    if tool.kind in ("cc", "mingw", "xcode"):
        return driver_parts(tool, flags_of(link))
    if tool.kind == "zig":
        return zig_parts(tool, flags_of(link))
    return program_parts(tool, flags_of(link))


def variables_of(link: Mapping[str, Json]) -> tuple[str, ...]:
    """`link.environment`: the names of the variables that the tool sees besides those that every program does."""
    names = link.get("environment") or ()
    if isinstance(names, str) or not isinstance(names, Sequence):
        raise TypeError(f"link.environment is a list of names, not {names!r}")
    return tuple(map(str, names))


def copy_objects(objects: Sequence[Path], scratch: Path) -> list[str]:
    """Copy the objects into the scratch directory; returns their names, sorted: commands contain no paths of this machine."""
    names = []
    for path in sorted(objects, key=lambda path: path.name):
        if path.name in names:
            raise UsageError(f"two objects are called '{path.name}'", fix="give them different names")
        shutil.copyfile(path, scratch / path.name)
        names.append(path.name)
    return names


def zig_environment(scratch: Path) -> dict[str, str]:
    """The caches of zig as a C compiler: files that all links share lie in the user's cache, the rest in scratch.

    zig locks its cache: several links may use it for the first time at once.
    """
    shared = os.environ.get("ZIG_GLOBAL_CACHE_DIR")
    shared = shared or str(user_directory("XDG_CACHE_HOME", "~/.cache", os.environ) / "zig")
    return {"ZIG_GLOBAL_CACHE_DIR": shared, "ZIG_LOCAL_CACHE_DIR": str(scratch / "zig")}
