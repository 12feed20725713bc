"""ELF shared objects, linked by the machine's C compiler.

The compiler is the target's (`link.compiler`), or $CC, or the first of cc, gcc and clang on PATH.  The link runs in a
scratch directory on relative file names, without soname and build id: its bytes depend on the objects alone, and two
models can be loaded into one process.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from llmbuild.canonical import Json
from llmbuild.errors import ToolchainError

CANDIDATES = ("cc", "gcc", "clang")
NAME = "lib.so"


def identity(link: Mapping[str, Json]) -> str:
    """The compiler's base name and the first line of its --version."""
    return _describe(find(link))


def find(link: Mapping[str, Json]) -> tuple[str, ...]:
    """The compiler's command; its first word is a full path.  Raises ToolchainError when there is none."""
    asked = link.get("compiler")
    if asked is None:
        asked = os.environ.get("CC", "").strip() or None
        origin = "$CC"
    else:
        origin = "the target's link.compiler"
    if asked is not None:
        words = shlex.split(str(asked))
        path = shutil.which(words[0])
        if path is None:
            raise ToolchainError(
                f"the C compiler '{words[0]}' is not on PATH",
                why=f"{origin} names it to link the shared object",
                fix=f"install it, or change {origin}",
            )
        return (path, *words[1:])
    for name in CANDIDATES:
        path = shutil.which(name)
        if path is not None:
            return (path,)
    raise ToolchainError(
        "no C compiler on PATH",
        why="a shared object is linked with one of " + ", ".join(CANDIDATES),
        fix="install one (Debian, Ubuntu: `apt install gcc`; Fedora: `dnf install gcc`; Alpine: `apk add gcc musl-dev`), "
        "or set CC to the one to use",
    )


def link(link: Mapping[str, Json], objects: Sequence[Path], out: Path, scratch: Path) -> None:
    """Link `objects` into `out`.  `link.flags` are appended to the command.  Raises ToolchainError with the tool's words."""
    compiler = find(link)
    names = []
    for path in sorted(objects, key=lambda path: path.name):
        shutil.copyfile(path, scratch / path.name)
        names.append(path.name)
    flags = link.get("flags") or ()
    if isinstance(flags, str) or not isinstance(flags, Sequence):
        raise TypeError(f"link.flags is a list of words, not {flags!r}")
    # The library is loaded into a process that already holds TVM's runtime: its symbols stay undefined here.
    command = [
        *compiler,
        "-shared",
        "-Wl,--build-id=none",
        "-Wl,-z,noexecstack",
        "-o",
        NAME,
        *names,
        *(str(flag) for flag in flags),
        "-lm",
    ]
    environment = {**os.environ, "LC_ALL": "C", "TMPDIR": str(scratch)}
    done = subprocess.run(command, cwd=scratch, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ToolchainError(
            f"the linker failed with exit code {done.returncode}",
            where=" ".join([Path(compiler[0]).name, *command[1:]]),
            why=done.stderr.strip()[-2000:] or None,
            fix=f"check that {Path(compiler[0]).name} can link for this target, or set CC to one that can",
        )
    shutil.move(scratch / NAME, out)


@cache
def _describe(compiler: tuple[str, ...]) -> str:
    name = " ".join((Path(compiler[0]).name, *compiler[1:]))
    try:
        done = subprocess.run([*compiler, "--version"], capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        raise ToolchainError(
            f"the C compiler '{name}' does not run", why=str(error), fix="repair it, or set CC to another one"
        ) from error
    return f"{name}: {done.stdout.splitlines()[0].strip()}" if done.stdout.strip() else name
