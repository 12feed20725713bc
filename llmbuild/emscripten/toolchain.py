"""Emscripten's compiler driver: where it is found, its name in a key, and how it is run.

emcc is looked up by the name that the target gives (`[link] compiler`), on PATH, and in the SDK that $EMSDK names.  Its
identity is its version: two machines with one release of Emscripten share results.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from llmbuild.errors import ToolchainError
from llmbuild.home import user_directory
from llmbuild.programs.parts import FileTree, Parts, named_files
from llmbuild.programs.run import Tool, ask_tool, run_tool

NAME = "emcc"
_PROGRAMS = (
    ("LLVM_ROOT", "", ("clang", "clang++", "wasm-ld", "llvm-ar", "llvm-nm", "llvm-objcopy")),
    ("BINARYEN_ROOT", "bin", ("wasm-opt", "wasm-emscripten-finalize", "wasm-metadce", "wasm-ctor-eval")),
)
"""By setting of Emscripten's configuration: the directory below it, and the programs there that write WebAssembly."""

_WITHOUT = ("tests", "test", "docs", "site", "media", "cmake", "node_modules")
"""Parts of Emscripten that do not take part in compiling."""

_CACHE = "cache"
_FROZEN = re.compile(r"^FROZEN_CACHE *= *True\b", re.MULTILINE)
_SETTING = re.compile(r"^(LLVM_ROOT|BINARYEN_ROOT) *= *(emsdk_path *\+ *)?['\"]([^'\"]+)['\"]", re.MULTILINE)
"""A directory in Emscripten's configuration; in that of the SDK it begins where the file is."""

FIX = (
    "install Emscripten (Debian, Ubuntu: `apt install emscripten`; elsewhere: the SDK of emscripten.org, with its "
    "directory in EMSDK), or name its compiler with [link] compiler in the target"
)


def find(compiler: Sequence[str] | None = None) -> Tool:
    """emcc, or the command that a target names; its output depends on its arguments alone.

    Raises ToolchainError when there is none.
    """
    words = compiler or (NAME,)
    path = shutil.which(words[0])
    sdk = os.environ.get("EMSDK")
    if path is None and not compiler and sdk:
        path = shutil.which(str(Path(sdk) / "upstream" / "emscripten" / NAME))
    if path is None:
        raise ToolchainError(
            f"Emscripten's compiler '{words[0]}' is not on PATH",
            why="a library for browsers is WebAssembly, and holds TVM's runtime compiled with it",
            fix=FIX,
        )
    return Tool((path, *words[1:]), NAME)


def identity(compiler: Sequence[str] | None = None) -> str:
    """`emcc 3.1.6`; of a build from sources also its commit.  Raises ToolchainError when there is no emcc that runs."""
    return identity_of(find(compiler))


def identity_of(emcc: Tool) -> str:
    """The identity of the tool that `find` returned."""
    first = ask_tool(emcc, "--version").partition("\n")[0]
    # "emcc (Emscripten gcc/clang-like replacement + linker emulating GNU ld) 3.1.6 (<commit>)"
    found = re.search(r"\) (\d\S*)(?: \(([^)\s]*)\))?", first)
    version = first.strip() if found is None else " ".join(part for part in found.groups() if part)
    return " ".join([NAME, version, *emcc.command[1:]]).strip()


def parts(emcc: Tool, flags: Sequence[str] = ()) -> Parts:
    """The launcher, Emscripten's own files with the system libraries that it links in, the programs that it runs with the
    headers of its clang, and the files that flags name.

    Where the launcher does not show which Emscripten it starts, the result is not complete.
    """
    launcher = Path(emcc.command[0])
    named = named_files([*emcc.command[1:], *flags])
    root = _root(launcher)
    if root is None:
        return Parts((launcher,), named, complete=False)
    config = _configuration(root)
    try:
        text = config.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return Parts((launcher,), named, (FileTree(root, without=(*_WITHOUT, _CACHE)),), complete=False)
    settings = {name: f"{config.parent if sdk else ''}{path}" for name, sdk, path in _SETTING.findall(text)}
    # Objects that Emscripten compiles from its own sources on demand are no part of it; a frozen cache was delivered with it.
    without = _WITHOUT if _FROZEN.search(text) else (*_WITHOUT, _CACHE)
    programs = [launcher]
    for setting, below, names in _PROGRAMS:
        place = Path(settings.get(setting, "")) / below
        for name in names if setting in settings else ():
            programs += sorted(path for path in (place / name, *place.glob(f"{name}-[0-9]*")) if path.is_file())
    complete = len(settings) == len(_PROGRAMS)
    # The file of an SDK contains paths of the machine.
    files = named if config.parent == root.parent.parent else (config, *named)
    clang = Path(settings.get("LLVM_ROOT", ""), "clang").resolve().parent.parent
    headers = [FileTree(place, ("include",)) for place in sorted(clang.glob("lib/clang/*"))]
    return Parts(tuple(programs), files, (FileTree(root, without=without), *headers), complete)


def _configuration(root: Path) -> Path:
    """The file with the settings of an Emscripten, in its own order: the variable's, its own, the SDK's, the user's."""
    named = os.environ.get("EM_CONFIG")
    places = (root, root.parent.parent, Path(os.environ.get("HOME", "/")))
    found = (place / ".emscripten" for place in places)
    return Path(named) if named else next((path for path in found if path.is_file()), root / ".emscripten")


def _root(launcher: Path) -> Path | None:
    """The directory with emcc.py that a launcher starts: its own, or the one that its text names."""
    place = launcher.resolve().parent
    if (place / "emcc.py").is_file():
        return place
    try:
        text = launcher.read_bytes()[:4096].decode(errors="replace")
    except OSError:
        return None
    named = re.search(r"(/[^\s\"'$]+)/(?:\$BASENAME|emcc)\.py", text)
    return Path(named[1]) if named is not None and (Path(named[1]) / "emcc.py").is_file() else None


def run(emcc: Tool, arguments: Sequence[str], directory: Path, makes: str) -> str:
    """Run emcc in a directory, where it makes a file, and return its output.

    Raises ToolchainError with its output when it fails.
    """
    return run_tool(
        emcc,
        arguments,
        directory,
        _cache(emcc),
        makes=makes,
        fix=f"check that this Emscripten works; {identity_of(emcc)} is what was used",
    )


def _writable(place: Path) -> bool:
    return os.access(place if place.exists() else place.parent, os.W_OK)


@cache
def _cache(emcc: Tool) -> Mapping[str, str]:
    """Where emcc stores the C library that it builds on first use: its own place, if that can be written or is complete
    (Debian's is), else one in the user's cache."""
    config = shutil.which("em-config", path=str(Path(emcc.command[0]).parent)) or shutil.which("em-config")
    if config is None or os.environ.get("EM_CACHE"):
        return {}
    place, frozen = (
        subprocess.run([config, name], env=emcc.environment, capture_output=True, text=True, check=False).stdout.strip()
        for name in ("CACHE", "FROZEN_CACHE")
    )
    if frozen == "True" or not place or _writable(Path(place)):
        return {}
    home = user_directory("XDG_CACHE_HOME", "~/.cache", os.environ)
    return {"EM_CACHE": str(home / "llmbuild-emscripten")}
