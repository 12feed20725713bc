"""zig, which brings LLVM's linkers and a C compiler: the program of the `ziglang` package."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

from llmbuild.programs.parts import Parts, program_parts
from llmbuild.programs.run import Tool, ask_tool


def zig(subcommand: str, kind: str = "lld") -> Tool | None:
    """A subcommand of the program, with its version, where the package is installed."""
    path = _program()
    return None if path is None else Tool((path, subcommand), kind, called=f"zig {subcommand}", version=_version(path))


def zig_parts(tool: Tool, flags: Sequence[str] = ()) -> Parts:
    """zig as a C compiler: besides the program the list of its package's files, which has the digest of each."""
    import importlib.metadata

    try:
        listed = importlib.metadata.distribution("ziglang").locate_file("")
        records = sorted(Path(str(listed)).glob("ziglang-*.dist-info/RECORD"))
    except importlib.metadata.PackageNotFoundError:
        records = []
    alone = program_parts(tool, flags)
    return replace(alone, files=(*records, *alone.files))


@cache
def _program() -> str | None:
    spec = importlib.util.find_spec("ziglang")
    for place in (spec and spec.submodule_search_locations) or ():
        for name in ("zig", "zig.exe"):
            if (Path(place) / name).is_file():
                return str(Path(place) / name)
    return None


@cache
def _version(program: str) -> str:
    """The package's release, which all its parts share: no program is started."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("ziglang")
    except PackageNotFoundError:
        return ask_tool(Tool((program,), "zig"), "version")
