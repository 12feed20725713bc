"""Emscripten's compiler driver: where it is, what it is called in a key, and running it.

emcc is looked for by the name that the target gives (`[link] compiler`), on PATH, and in the SDK that $EMSDK names.  Its
identity is its version: two machines with one release of Emscripten share what they built.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from llmbuild.errors import ToolchainError

NAME = "emcc"
FIX = (
    "install Emscripten (Debian, Ubuntu: `apt install emscripten`; elsewhere: the SDK of emscripten.org, with its "
    "directory in EMSDK), or name its compiler with [link] compiler in the target"
)


def find(compiler: str | None = None) -> tuple[str, ...]:
    """The command of emcc; its first word is a full path.  Raises ToolchainError when there is none."""
    words = shlex.split(compiler) if compiler else [NAME]
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
    return (path, *words[1:])


def identity(compiler: str | None = None) -> str:
    """`emcc 3.1.6`; of a build from sources also its commit.  Raises ToolchainError when there is no emcc that runs."""
    return _describe(find(compiler))


@cache
def _describe(command: tuple[str, ...]) -> str:
    try:
        done = subprocess.run(
            [*command, "--version"], env=environment(), capture_output=True, text=True, check=True, timeout=120
        )
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or str(error)
        raise ToolchainError(
            f"Emscripten's compiler '{Path(command[0]).name}' does not run",
            why=str(said).strip()[-2000:],
            fix="repair it, or install another one",
        ) from error
    first = next(iter(done.stdout.splitlines()), "")
    # "emcc (Emscripten gcc/clang-like replacement + linker emulating GNU ld) 3.1.6 (<commit>)"
    found = re.search(r"\) (\d\S*)(?: \(([^)\s]*)\))?", first)
    version = first.strip() if found is None else " ".join(part for part in found.groups() if part)
    return " ".join([NAME, version, *command[1:]]).strip()


def run(command: Sequence[str], arguments: Sequence[str], directory: Path, *, doing: str) -> str:
    """Run emcc in a directory and return what it said.  Raises ToolchainError with its words when it fails."""
    done = subprocess.run(
        [*command, *arguments],
        cwd=directory,
        env={**environment(), **_cache(command[0]), "TMPDIR": str(directory), "LC_ALL": "C"},
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    said = "\n".join(part for part in (done.stderr.strip(), done.stdout.strip()) if part)
    if done.returncode != 0:
        raise ToolchainError(
            f"Emscripten failed to {doing} (exit code {done.returncode})",
            where=" ".join([Path(command[0]).name, *arguments]),
            why=said[-2000:] or None,
            fix=f"check that this Emscripten works; {identity_of(command)} is what was used",
        )
    return said


def identity_of(command: Sequence[str]) -> str:
    """The identity of a command that `find` returned."""
    return _describe(tuple(command))


def environment() -> dict[str, str]:
    """The environment without the variables by which emcc takes further flags: what it makes depends on its arguments."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("EMCC_", "EMMAKEN_"))}


def _writable(place: Path) -> bool:
    return os.access(place if place.exists() else place.parent, os.W_OK)


@cache
def _cache(emcc: str) -> Mapping[str, str]:
    """Where emcc keeps the C library that it builds on first use: its own place, if that can be written or is complete
    (Debian's is), else one in the user's cache."""
    config = shutil.which("em-config", path=str(Path(emcc).parent)) or shutil.which("em-config")
    if config is None or os.environ.get("EM_CACHE"):
        return {}
    place, frozen = (
        subprocess.run([config, name], env=environment(), capture_output=True, text=True, check=False).stdout.strip()
        for name in ("CACHE", "FROZEN_CACHE")
    )
    if frozen == "True" or not place or _writable(Path(place)):
        return {}
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return {"EM_CACHE": str(Path(home) / "llmbuild-emscripten")}
