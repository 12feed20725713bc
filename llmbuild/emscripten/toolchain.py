"""Emscripten's compiler driver: where it is, what it is called in a key, and running it.

emcc is looked for by the name that the target gives (`[link] compiler`), on PATH, and in the SDK that $EMSDK names.  Its
identity is its version: two machines with one release of Emscripten share what they built.
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
from llmbuild.programs.run import Tool, ask_tool, run_tool

NAME = "emcc"
FIX = (
    "install Emscripten (Debian, Ubuntu: `apt install emscripten`; elsewhere: the SDK of emscripten.org, with its "
    "directory in EMSDK), or name its compiler with [link] compiler in the target"
)


def find(compiler: Sequence[str] | None = None) -> Tool:
    """emcc, or the command that a target names; what it makes depends on its arguments alone.

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
    """The identity of what `find` returned."""
    first = ask_tool(emcc, "--version").partition("\n")[0]
    # "emcc (Emscripten gcc/clang-like replacement + linker emulating GNU ld) 3.1.6 (<commit>)"
    found = re.search(r"\) (\d\S*)(?: \(([^)\s]*)\))?", first)
    version = first.strip() if found is None else " ".join(part for part in found.groups() if part)
    return " ".join([NAME, version, *emcc.command[1:]]).strip()


def run(emcc: Tool, arguments: Sequence[str], directory: Path, makes: str) -> str:
    """Run emcc in a directory, where it makes a file, and return what it said.

    Raises ToolchainError with its words when it fails.
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
    """Where emcc keeps the C library that it builds on first use: its own place, if that can be written or is complete
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
    return {"EM_CACHE": str(Path(home) / "llmbuild-emscripten")}
