"""What a library's file says of itself to an independent reader (lief), whatever its format."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lief

_ELF = {"X86_64": "x86_64", "AARCH64": "aarch64"}
_MACHO = {"X86_64": "x86_64", "ARM64": "aarch64"}
_PE = {"AMD64": "x86_64", "ARM64": "aarch64"}


@dataclass(frozen=True)
class Facts:
    """Format ("elf", "macho", "pe", which objects for Windows have too), CPU as the first word of a target's name, and the
    names that it exports and needs."""

    format: str
    cpu: str
    exports: frozenset[str]
    needs: frozenset[str]
    platform: str = ""
    minimum_os: str = ""


def read_library(path: Path) -> Facts:
    """A shared library, or an object of an archive."""
    if lief.is_coff(str(path)):
        return _read_coff(path)
    binary: Any = lief.parse(str(path))
    assert binary is not None, path
    if isinstance(binary, lief.ELF.Binary):
        names = {str(symbol.name) for symbol in binary.symbols if symbol.shndx != 0 and symbol.binding.name != "LOCAL"}
        needs = {str(symbol.name).split("@")[0] for symbol in binary.symbols if symbol.shndx == 0} - {""}
        return Facts("elf", _ELF[binary.header.machine_type.name], frozenset(names), frozenset(needs))
    if isinstance(binary, lief.MachO.Binary):
        # The bits of N_TYPE are 0 where a symbol is defined elsewhere; N_EXT is 1.
        names = {str(symbol.name).removeprefix("_") for symbol in binary.symbols if symbol.raw_type & 0x0F == 0x0F}
        needs = {str(symbol.name).removeprefix("_") for symbol in binary.symbols if symbol.raw_type & 0x0E == 0}
        built = binary.build_version
        assert built is not None, f"{path} says no version of a system"
        oldest = ".".join(map(str, built.minos[:2]))
        cpu = _MACHO[binary.header.cpu_type.name]
        return Facts("macho", cpu, frozenset(names), frozenset(needs), built.platform.name, oldest)
    assert isinstance(binary, lief.PE.Binary), type(binary)
    exports = binary.get_export()
    assert exports is not None
    names = {str(entry.name) for entry in exports.entries}
    needs = {str(entry.name) for library in binary.imports for entry in library.entries}
    return Facts("pe", _PE[binary.header.machine.name], frozenset(names), frozenset(needs))


def _read_coff(path: Path) -> Facts:
    """An object for Windows.  A weak symbol is neither: it has a definition here, which no other object may use."""
    binary = lief.COFF.parse(str(path))
    assert isinstance(binary, lief.COFF.Binary)
    external = lief.COFF.Symbol.STORAGE_CLASS.EXTERNAL
    found = [(str(one.name), one.section_idx) for one in binary.symbols if one.storage_class == external]
    names = frozenset(name for name, section in found if section != 0)
    needs = frozenset(name for name, section in found if section == 0)
    return Facts("pe", _PE[binary.header.machine.name], names, needs)


def read_archive(path: Path, where: Path) -> Mapping[str, Facts]:
    """The objects of a .tar by name, unpacked into `where`."""
    with tarfile.open(path) as archive:
        archive.extractall(where, filter="data")
    return {member.name: read_library(member) for member in _files(where)}


def _files(where: Path) -> Iterator[Path]:
    return (path for path in sorted(where.rglob("*")) if path.is_file())
