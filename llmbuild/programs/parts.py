"""The files that determine a program's output: itself, the programs that it runs, the files of its package that go into a
result, and the shared libraries that come with them.  Keys of actions contain the hashes of their content.

The C library is left out: it belongs to the machine, and its standard specifies its behaviour.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from llmbuild.programs.run import PATIENCE_S, Tool, ask_tool

_C_LIBRARY = re.compile(r"(?:lib(?:c|m|dl|pthread|rt|resolv|util|nsl|anl)\.so|libc\.musl|ld-(?:linux|musl)|linux-vdso)")
_LOADED = re.compile(r"^\s*\S+ => (/.+) \(0x[0-9a-f]+\)$|^\s*(/.+) \(0x[0-9a-f]+\)$", re.MULTILINE)

_DRIVEN = ("real-ld", "collect-ld", "ld", "collect2", "lto-wrapper")
"""The programs that a C compiler runs to link, as collect2 of GCC looks them up."""
_LINKED = ("crtbeginS.o", "crtendS.o", "libgcc.a", "libgcc_s.so", "liblto_plugin.so", "specs")
"""The files of a C compiler's package that take part in linking a shared object; GCC reads `specs` only where it exists."""
_CONFIGURATION = re.compile(r"^Configuration file: (/.+)$", re.MULTILINE)
"""The line of clang's output that names a configuration file which it read on its own."""
_SEPARATE = ("-B", "-L", "-l", "-T")
"""Options whose value may be the next word."""

_SCRIPT = 1 << 16
"""How much of a script is read, at most."""
_MOST_LAUNCHED = 16
_STARTED = re.compile(r"(?:^|(?<=[\s\"']))(/[^\s\"'$;|&<>()`]+)|\bexec\s+[\"']?([\w.+-]+)")
"""The programs that a script starts: by their whole paths, or by the word behind `exec`."""


Listed: TypeAlias = tuple[str, int, int, int, int]
"""A file's path, relative to a directory, its inode, its size in bytes, its mtime and its ctime in nanoseconds."""


@dataclass(frozen=True, slots=True)
class FileTree:
    """The files below a directory, in the named parts of it, or in all but the `without` ones."""

    root: Path
    parts: tuple[str, ...] = ()
    without: tuple[str, ...] = ()

    def walk(self, wanted: Callable[[str], bool] | None = None) -> list[Listed]:
        """The files whose name is selected, sorted by their paths, with their stats; compiled Python is left out.

        Raises OSError.
        """
        found: list[Listed] = []
        left = [("", "")]
        if self.parts:
            left = [(part, f"{part}/") for part in self.parts if (self.root / part).is_dir()]
        # A stack and no generators: a plan walks through the thousands of files of TVM.
        while left:
            directory, prefix = left.pop()
            with os.scandir(f"{self.root}/{directory}") as entries:
                for entry in entries:
                    name = entry.name
                    if entry.is_dir(follow_symlinks=False):
                        if name != "__pycache__" and prefix + name not in self.without:
                            left.append((prefix + name, f"{prefix}{name}/"))
                    elif (wanted is None or wanted(name)) and entry.is_file():
                        stat = entry.stat()
                        found.append((prefix + name, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns))
        return sorted(found)


@dataclass(frozen=True, slots=True)
class Parts:
    """`programs` count with the shared libraries that they load, `files` alone, `trees` whole.

    `complete` means that the output for a query such as "--version" can change only when one of these changes.
    """

    programs: tuple[Path, ...] = ()
    files: tuple[Path, ...] = ()
    trees: tuple[FileTree, ...] = ()
    complete: bool = True


def program_parts(tool: Tool, flags: Sequence[str] = ()) -> Parts:
    """A tool that works alone: its executable, and the files that its flags name."""
    return Parts(tuple(launched(Path(tool.executable or tool.command[0]))), named_files([*tool.command[1:], *flags]))


def driver_parts(tool: Tool, flags: Sequence[str] = ()) -> Parts:
    """A C compiler that links: also the further programs that its command names (`ccache gcc`), the linker that it runs, and
    the files of its own package that it links in."""
    words = _words([*tool.command[1:], *flags])
    chosen = [name for word in words if "/" not in (name := word.removeprefix("-fuse-ld=")) and name != word]
    # Flags such as -B and -m32 change the search paths of the programs that it runs and of the files that it links in.
    asked = replace(tool, command=(*tool.command, *flags))
    said = _said(asked, "-print-search-dirs")
    found = dict(re.findall(r"^(programs|libraries): =(.*)$", said, re.MULTILINE))
    places = {name: found.get(name, "").split(os.pathsep) for name in ("programs", "libraries")}
    linkers = [f"ld.{name}" for name in chosen]
    named = named_files(words)
    programs = [*_programs_of(tool), *(path for path in named if os.access(path, os.X_OK))]
    for name in (*_DRIVEN, *linkers):
        path = _in(places["programs"], name) or (shutil.which(name) if name.startswith("ld") else None)
        programs += [Path(path)] if path is not None else []
    files = [Path(path) for name in _LINKED if (path := _in(places["libraries"], name)) is not None]
    if not said.startswith("install: "):
        # clang, unlike GCC, may take a linker that is called after its target, and reads files of its own.
        answer = _said(asked, f"-print-prog-name={[*_DRIVEN[2:3], *linkers][-1]}").strip()
        programs += [Path(answer)] if os.path.isabs(answer) and os.path.isfile(answer) else []  # noqa: PTH113, PTH117
        files += [Path(path) for path in _CONFIGURATION.findall(_said(asked, "--version")) if os.path.isfile(path)]  # noqa: PTH113
    files += [path for path in named if path not in programs]
    return Parts(tuple(dict.fromkeys(programs)), tuple(dict.fromkeys(files)))


def named_files(words: Sequence[str]) -> tuple[Path, ...]:
    """The files that a command names by whole paths, also in files of words, and the libraries that it names by -l in the
    directories of its -L."""
    return tuple(dict.fromkeys(_named(_words(words))))


def beside(program: Path, names: Iterable[str]) -> list[Path]:
    """The files of these names that are in the directory of a program, or in one that the names lead to from there."""
    place = program.resolve().parent
    return [path for name in names if (path := Path(os.path.normpath(place / name))).is_file()]


def loaded_libraries(program: Path) -> list[Path]:
    """The shared libraries that the loader would give a program, the C library's left out; none where they are unknown."""
    ldd = shutil.which("ldd")
    if ldd is None:
        return []
    done = subprocess.run(
        [ldd, os.fspath(program)],
        env={"PATH": os.defpath, "LC_ALL": "C"},
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        timeout=PATIENCE_S,
    )
    paths = (Path(first or second) for first, second in _LOADED.findall(done.stdout))
    return [path for path in paths if not _C_LIBRARY.match(path.name)]


def launched(program: Path) -> list[Path]:
    """A program and, where it is a script, the programs that its text starts, as far as scripts start scripts."""
    found = {program: None}
    left = [program]
    while left and len(found) <= _MOST_LAUNCHED:
        for absolute, word in _STARTED.findall(_script(left.pop())):
            path = Path(absolute or shutil.which(word) or "/")
            if path not in found and path.is_file() and os.access(path, os.X_OK):
                found[path] = None
                left.append(path)
    return list(found)


def _script(program: Path) -> str:
    """The text of a script behind its first line; empty for another program."""
    try:
        with program.open("rb") as file:
            text = file.read(_SCRIPT) if file.read(2) == b"#!" else b""
    except OSError:
        return ""
    return text.decode(errors="replace").partition("\n")[2]


def _programs_of(tool: Tool) -> Iterator[Path]:
    yield from launched(Path(tool.executable or tool.command[0]))
    for word in tool.command[1:]:
        found = None if word.startswith("-") else shutil.which(word)
        if found is not None:
            yield from launched(Path(found))


def _words(words: Sequence[str]) -> list[str]:
    """The words of a command one by one: options with their values, those for the linker alone, and those in files of words."""
    found: list[str] = []
    opened: set[str] = set()
    left = list(reversed(words))
    while left:
        word = left.pop()
        if word.startswith("-Wl,"):
            left += reversed(word.split(",")[1:])
            continue
        found.append(word + left.pop() if word in _SEPARATE and left else word)
        if word.startswith("@/") and word not in opened:
            opened.add(word)
            left += reversed(_words_in(Path(word[1:])))
    return found


def _words_in(path: Path) -> list[str]:
    try:
        return shlex.split(path.read_text(encoding="utf-8", errors="replace")[:_SCRIPT])
    except (OSError, ValueError):
        return []


def _named(words: Sequence[str]) -> Iterator[Path]:
    places = [word[2:] for word in words if word.startswith("-L")]
    for word in words:
        for part in re.split("[,=]", word):
            # The characters before the path are an option (-T/script) or the sign of a file of words (@/words).
            path = part[part.find("/") :]
            if os.path.isabs(path) and os.path.isfile(path):  # noqa: PTH113, PTH117
                yield Path(path)
        if word.startswith("-l"):
            names = [word[3:]] if word.startswith("-l:") else [f"lib{word[2:]}{suffix}" for suffix in (".so", ".a")]
            yield from (Path(path) for name in names if (path := _in(places, name)) is not None)


def _said(tool: Tool, question: str) -> str:
    """A compiler's output for a query; empty where the program does not answer as a compiler."""
    from llmbuild.errors import ToolchainError

    try:
        return ask_tool(tool, question)
    except ToolchainError:
        return ""


def _in(places: Sequence[str], name: str) -> str | None:
    paths = (os.path.normpath(os.path.join(place, name)) for place in places if os.path.isabs(place))  # noqa: PTH117, PTH118
    return next((path for path in paths if os.path.isfile(path)), None)  # noqa: PTH113
