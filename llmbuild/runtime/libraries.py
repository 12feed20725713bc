"""Find the library files that belong to a model directory, and those of them that this machine can load.

A build puts `libs/<model>-<scheme>-<platform>.<artifact>` beside `<model>-<scheme>-MLC/`.  The platform of a file is read from
its first bytes, and from the record that lies beside a library for another device than a CPU.
"""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

from llmbuild.errors import StoreError, UsageError

ENDING = "-MLC"
"""The suffix of the name of a model directory."""

_ARTIFACTS = (".so", ".dylib", ".dll", ".wasm", ".tar")
_HEADER = 4096
_SYSTEMS = {"linux": "Linux", "darwin": "macOS", "win32": "Windows"}
_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
"""Other names of the machines that ours are compared with."""

_ELF = {62: "x86_64", 183: "aarch64"}
_MACH = {0x01000007: "x86_64", 0x0100000C: "aarch64"}
_PE = {0x8664: "x86_64", 0xAA64: "aarch64"}


def this_machine() -> str:
    """The processor of this machine, as platforms spell it."""
    name = platform.machine().lower()
    return _MACHINES.get(name, name)


def find_library(directory: Path) -> Path:
    """The one library beside a model directory that this machine can load.

    Raises UsageError when there is none, or when there are several, and StoreError when they cannot be read.
    """
    # Not resolved: where the directory is a link, its own name and its neighbours count.
    directory = Path(os.path.abspath(directory))  # noqa: PTH100
    place = directory.parent / "libs"
    found = [path for path in _entries(place) if _belongs(path, directory)]
    if not found:
        raise UsageError(
            "there is no library for this model",
            where=str(place),
            why=f"no file is named {_stem(directory)}-PLATFORM",
            fix="build one with `llmbuild build`, or name the file: llmbuild.load(model_dir, library)",
        )
    reasons = {path: why_not_here(path) for path in found}
    fit = [path for path, reason in reasons.items() if reason is None]
    if not fit:
        raise UsageError(
            "none of this model's libraries can be loaded on this machine",
            where=str(place),
            why="\n".join(f"{path.name} is {reason}" for path, reason in reasons.items()),
            fix=_FIX,
        )
    if len(fit) > 1:
        raise UsageError(
            "several libraries of this model can be loaded on this machine",
            where=str(place),
            why=", ".join(path.name for path in fit),
            fix="name one: llmbuild.load(model_dir, library)",
        )
    return fit[0]


_FIX = "build it for this machine's CPU: `llmbuild targets` lists what can be built for"


def require_loadable(path: Path) -> None:
    """Raise UsageError for a library that this machine cannot load, and StoreError for one that cannot be read."""
    reason = why_not_here(path)
    if reason is not None:
        raise UsageError(
            "the library cannot be loaded on this machine", where=str(path), why=f"it is {reason}", fix=_FIX
        )


def why_not_here(path: Path) -> str | None:
    """A description (`for aarch64 Linux`) of a library that this machine cannot load; None for one that it may load."""
    if path.suffix == ".tar":
        return "an archive of objects, which is linked into an application"
    if path.suffix == ".wasm":
        return "for browsers"
    try:
        with path.open("rb") as file:
            header = file.read(_HEADER)
    except OSError as error:
        raise StoreError("the library cannot be read", where=str(path), why=error.strerror) from error
    system, machine = _compiled_for(header)
    if system is not None and (system, machine) != (sys.platform, this_machine()):
        return f"for {machine or 'another processor'} on {_SYSTEMS[system]}"
    if os.path.isfile(f"{path}.json"):  # noqa: PTH113
        return "for another device than a CPU, and this TVM runs on the CPU"
    return None


def _compiled_for(header: bytes) -> tuple[str | None, str | None]:
    """The system and the processor of a shared library; None where the bytes do not identify them."""

    def number(at: int, size: int) -> int:
        return int.from_bytes(header[at : at + size], "little")

    if header.startswith(b"\x7fELF"):
        return "linux", _ELF.get(number(18, 2))
    if header.startswith(b"\xcf\xfa\xed\xfe"):
        return "darwin", _MACH.get(number(4, 4))
    if header.startswith(b"MZ"):
        start = number(0x3C, 4)
        return "win32", _PE.get(number(start + 4, 2)) if start + 6 <= len(header) else None
    return None, None


def _entries(place: Path) -> list[Path]:
    try:
        return sorted(place.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise StoreError("the libraries cannot be listed", where=str(place), why=error.strerror) from error


def _stem(directory: Path) -> str:
    return directory.name.removesuffix(ENDING)


def _belongs(path: Path, directory: Path) -> bool:
    """Whether a file is named after a model directory, and not after a longer name of another one beside it."""
    stem = f"{_stem(directory)}-"
    if path.suffix not in _ARTIFACTS or not path.name.startswith(stem):
        return False
    parts = path.name.removeprefix(stem).split("-")
    longer = (stem + "-".join(parts[:count]) for count in range(1, len(parts)))
    return not any(os.path.isdir(directory.parent / f"{name}{ENDING}") for name in longer)  # noqa: PTH112
