"""Run a compiler or a linker, and query its version; an error quotes the output of a program that fails."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from llmbuild.canonical import Json
from llmbuild.errors import ToolchainError
from llmbuild.programs.environment import LANGUAGE, seen

MOST_WORDS = 2000
"""How many characters of the end of a program's output an error quotes."""

PATIENCE_S = 120.0
"""How long a query may take: emcc checks its installation at its first one."""


@dataclass(frozen=True, slots=True)
class Tool:
    """A command, and the executable behind its first word where that is another file.

    `kind` is what callers branch on: "cc" (takes a C compiler's arguments), "lld" (LLVM's linker) or a name of their own.
    `version` is set where it is known without a query.  `variables` are those that its target adds to the ones that every
    program sees.
    """

    command: tuple[str, ...]
    kind: str
    executable: str | None = None
    called: str = ""
    version: str = ""
    variables: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Its name in messages and keys, without its directory: "ld.lld", "aarch64-linux-gnu-gcc -m64"."""
        return self.called or " ".join((Path(self.command[0]).name, *self.command[1:]))

    @property
    def environment(self) -> dict[str, str]:
        """The part of this process's environment that it sees."""
        return {**seen(self.variables), **LANGUAGE}


def compiler_of(link: Mapping[str, Json]) -> tuple[str, ...] | None:
    """The words of the command that a target's `link.compiler` names, a program's name or a list; None without one."""
    named = link.get("compiler")
    if named is None or isinstance(named, str):
        return None if named is None else (named,)
    if not isinstance(named, Sequence) or not named:
        raise TypeError(f"link.compiler is a name or a list of words, not {named!r}")
    return tuple(map(str, named))


def run_tool(
    tool: Tool,
    arguments: Sequence[str],
    directory: Path,
    environment: Mapping[str, str] | None = None,
    *,
    makes: str,
    fix: str = "",
) -> str:
    """Run the tool in a directory, which receives its temporary files too, and return its output.  The command line goes to
    standard error, which is the log of the task that runs it.

    Raises ToolchainError with its output when it fails, and when it reports success but the file that it `makes` in the
    directory is missing.
    """
    print(f"$ {shlex.join([*tool.command, *arguments])}", file=sys.stderr)
    try:
        done = subprocess.run(
            [*tool.command, *arguments],
            executable=tool.executable,
            cwd=directory,
            env={**tool.environment, "TMPDIR": str(directory), **(environment or {})},
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    except OSError as error:
        raise _does_not_run(tool, [tool.name, *arguments], str(error)) from error
    said = "\n".join(part for part in (done.stderr.strip(), done.stdout.strip()) if part)
    if done.returncode != 0:
        raise ToolchainError(
            f"{tool.name} failed with exit code {done.returncode}",
            where=" ".join([tool.name, *arguments]),
            why=said[-MOST_WORDS:] or None,
            fix=fix or f"check that {tool.name} works for this target",
        )
    made = directory / makes
    if made.is_symlink() or not made.is_file():
        raise ToolchainError(
            f"{tool.name} wrote no {makes}",
            where=" ".join([tool.name, *arguments]),
            why="it ended as if it had" + (f", and said: {said[-MOST_WORDS:]}" if said else ""),
            fix="check that it is the compiler or the linker that its name says",
        )
    return said


@cache
def ask_tool(tool: Tool, question: str) -> str:
    """The tool's output for one argument, such as "--version".  Raises ToolchainError when it does not run."""
    command = [*tool.command, question]
    try:
        return subprocess.run(
            command,
            executable=tool.executable,
            env=tool.environment,
            capture_output=True,
            text=True,
            errors="replace",
            check=True,
            timeout=PATIENCE_S,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError) as error:
        said = error.stderr.strip() if isinstance(error, subprocess.CalledProcessError) else ""
        raise _does_not_run(tool, command, said[-MOST_WORDS:] or str(error)) from error


def _does_not_run(tool: Tool, command: Sequence[str], why: str) -> ToolchainError:
    return ToolchainError(
        f"'{tool.name}' does not run",
        where=" ".join(command),
        why=why,
        fix="repair it, or take it away so that another is used",
    )
