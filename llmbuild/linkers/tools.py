"""Linking tools of this machine: how they are found, named and run.

A tool is found where pip puts it (the `ziglang` package), on PATH, or where a distribution hides it (Debian keeps some
names of LLVM's linker in /usr/lib/llvm-<version>/bin).  Its identity says what it is and its version and no path: it is
part of a link action's key.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from llmbuild.canonical import Json
from llmbuild.errors import ToolchainError, UsageError

CROSS = "`pip install 'llmbuild[cross]'` brings a linker for ELF, Mach-O and Windows"
"""The advice of every linker that the extra can stand in for."""

DEBIAN = Path("/usr/lib")
"""Where Debian has LLVM's programs, in llvm-<version>/bin, besides those on PATH."""

LLD_NAMES = ("ld.lld", "ld64.lld", "lld-link")
"""One program under three names: it links for ELF, Mach-O or Windows by the name that it is called by."""


@dataclass(frozen=True, slots=True)
class Tool:
    """A command, and the executable behind its first word where that is another file.

    `kind` is what the linkers branch on: "cc" (takes a C compiler's arguments), "lld" (one of LLD_NAMES) or a name that
    a linker module gives itself.
    """

    command: tuple[str, ...]
    kind: str
    executable: str | None = None
    called: str = ""

    @property
    def name(self) -> str:
        """What to call it in messages and keys, without its directory: "ld.lld", "aarch64-linux-gnu-gcc -m64"."""
        return self.called or " ".join((Path(self.command[0]).name, *self.command[1:]))


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
    machine = platform.machine().lower()
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
    """Why no other tool was taken: the target's own words."""
    return None if linker is None else f"the target's link.linker is '{linker}', which is not here"


def on_path(names: Sequence[str], kind: str) -> Tool | None:
    """The first of the commands that is on PATH."""
    for name in names:
        path = shutil.which(name)
        if path is not None:
            return Tool((path,), kind)
    return None


def zig(*subcommand: str) -> Tool | None:
    """A subcommand of the `ziglang` package's program, where that package is installed."""
    path = _zig()
    return None if path is None else Tool((path, *subcommand), "lld", called=" ".join(("zig", *subcommand)))


@cache
def _zig() -> str | None:
    spec = importlib.util.find_spec("ziglang")
    for place in (spec and spec.submodule_search_locations) or ():
        for name in ("zig", "zig.exe"):
            if (Path(place) / name).is_file():
                return str(Path(place) / name)
    return None


def lld(name: str) -> Tool | None:
    """LLVM's linker under one of LLD_NAMES, from PATH or a directory of Debian's.  It may be there under another name."""
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


@cache
def identity(tool: Tool) -> str:
    """The tool's name and the first line of its version.  Raises ToolchainError when it does not run.

    A subcommand of zig is named by the version of its package: one release of all its parts, and nothing to start.
    """
    if tool.command[0] == _zig():
        version = _zig_version()
        if version is not None:
            return f"{tool.name}: {version}"
    try:
        done = subprocess.run(
            [*tool.command, "--version"],
            executable=tool.executable,
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise ToolchainError(
            f"'{tool.name}' does not run", why=str(error), fix="repair it, or take it away so that another is used"
        ) from error
    lines = done.stdout.strip().splitlines()
    return f"{tool.name}: {lines[0].strip()}" if lines else tool.name


@cache
def _zig_version() -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("ziglang")
    except PackageNotFoundError:
        return None


def run(
    tool: Tool, arguments: Sequence[str], where: Path, environment: Mapping[str, str] | None = None, *, fix: str = ""
) -> str:
    """Run the tool in a directory and return what it said.  Raises ToolchainError with its words when it fails."""
    done = subprocess.run(
        [*tool.command, *arguments],
        executable=tool.executable,
        cwd=where,
        env={**os.environ, "LC_ALL": "C", "TMPDIR": str(where), **(environment or {})},
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    said = "\n".join(part for part in (done.stderr.strip(), done.stdout.strip()) if part)
    if done.returncode != 0:
        raise ToolchainError(
            f"the linker failed with exit code {done.returncode}",
            where=" ".join([tool.name, *arguments]),
            why=said[-2000:] or None,
            fix=fix or f"check that {tool.name} can link for this target",
        )
    return said


def copy_objects(objects: Sequence[Path], scratch: Path) -> list[str]:
    """Copy the objects into the scratch directory; returns their names, sorted: commands hold no paths of this machine."""
    names = []
    for path in sorted(objects, key=lambda path: path.name):
        if path.name in names:
            raise UsageError(f"two objects are called '{path.name}'", fix="give them different names")
        shutil.copyfile(path, scratch / path.name)
        names.append(path.name)
    return names


def zig_environment(scratch: Path) -> dict[str, str]:
    """Where zig as a C compiler keeps what it builds: what every link shares in the user's cache, the rest in scratch.

    zig locks its cache: several links may use it for the first time at once.
    """
    cache_home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    shared = os.environ.get("ZIG_GLOBAL_CACHE_DIR") or str(Path(cache_home) / "zig")
    return {"ZIG_GLOBAL_CACHE_DIR": shared, "ZIG_LOCAL_CACHE_DIR": str(scratch / "zig")}
