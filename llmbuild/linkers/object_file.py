"""What a static archive's index needs of an object file: its format, its machine, and the symbols that it defines.

Read are little-endian ELF objects of 32 and 64 bits and Mach-O objects of 64 bits, as LLVM writes them for phones.  Sources: the
System V ABI (gabi41), chapter 4, "ELF Header", "Sections" and "Symbol Table"; Apple's mach-o/loader.h and mach-o/nlist.h.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from llmbuild.errors import InputError

ELF_MACHINES = {3: "x86", 40: "arm", 62: "x86_64", 183: "aarch64"}
"""EM_386, EM_ARM, EM_X86_64, EM_AARCH64."""

MACHO_MACHINES = {0x0100_0007: "x86_64", 0x0100_000C: "arm64"}
"""CPU_TYPE_X86_64, CPU_TYPE_ARM64."""

MACHO_PLATFORMS = {1: "macOS", 2: "iOS", 6: "Mac Catalyst", 7: "the iOS simulator"}
"""PLATFORM_MACOS, PLATFORM_IOS, PLATFORM_MACCATALYST, PLATFORM_IOSSIMULATOR."""

_SYMBOL_TABLE = 2
"""SHT_SYMTAB; also the number of LC_SYMTAB."""

_BUILD_VERSION = 0x32
"""LC_BUILD_VERSION."""

_LOCAL, _WEAK = 0, 2
"""STB_LOCAL, STB_WEAK."""

_STAB, _EXTERNAL, _TYPE, _WEAK_DEFINITION = 0xE0, 0x01, 0x0E, 0x80
"""N_STAB, N_EXT and N_TYPE of a Mach-O symbol's type, N_WEAK_DEF of its description."""


@dataclass(frozen=True, slots=True)
class Symbol:
    """An external symbol that an object defines, as the linker spells it (`_name` for a C name in Mach-O)."""

    name: str
    weak: bool


@dataclass(frozen=True, slots=True)
class ObjectFile:
    """`machine` is the processor, and for Mach-O the system where the object names it: "arm64 for iOS"."""

    format: Literal["ELF", "Mach-O"]
    machine: str
    symbols: tuple[Symbol, ...]


def read_object(data: bytes, name: str) -> ObjectFile:
    """Read an object file.  Raises InputError, at `name`, for anything that is none."""
    try:
        if data[:4] == b"\x7fELF" and data[5:6] == b"\x01":
            return _read_elf(data)
        if data[:4] == b"\xcf\xfa\xed\xfe":
            return _read_macho(data)
    except (struct.error, ValueError, IndexError) as error:
        raise InputError("the object file is damaged", where=name, why=str(error)) from error
    raise InputError(
        "no object that a static archive can have",
        where=name,
        why="an archive for phones has ELF objects (Android) or Mach-O objects (iOS)",
    )


def _read_elf(data: bytes) -> ObjectFile:
    wide = data[4] == 2
    (machine,) = struct.unpack_from("<H", data, 18)
    (sections,) = struct.unpack_from("<Q" if wide else "<I", data, 40 if wide else 32)
    size, count = struct.unpack_from("<HH", data, 58 if wide else 46)
    # sh_type, then sh_offset, sh_size, sh_link.
    header = struct.Struct("<4xI16xQQI" if wide else "<4xI8xIII")
    symbols: tuple[Symbol, ...] = ()
    for index in range(count):
        kind, offset, length, link = header.unpack_from(data, sections + index * size)
        if kind == _SYMBOL_TABLE:
            _, start, room, _ = header.unpack_from(data, sections + link * size)
            symbols = tuple(_elf_symbols(data[offset : offset + length], data[start : start + room], wide))
            break  # There is one at most.
    return ObjectFile("ELF", ELF_MACHINES.get(machine, f"machine {machine}"), symbols)


def _elf_symbols(table: bytes, names: bytes, wide: bool) -> Iterator[Symbol]:
    """The defined ones of a symbol table that are not local."""
    # st_name, st_info, st_shndx: the 32-bit form has value and size between the first two.
    entry = struct.Struct("<IBxH16x" if wide else "<I8xBxH")
    for at, info, section in entry.iter_unpack(table):
        if info >> 4 != _LOCAL and section != 0:
            yield Symbol(_text(names, at), info >> 4 == _WEAK)


def _read_macho(data: bytes) -> ObjectFile:
    machine, _, _, count = struct.unpack_from("<IIII", data, 4)
    named = MACHO_MACHINES.get(machine, f"machine {machine:#x}")
    symbols: tuple[Symbol, ...] = ()
    at = 32
    for _ in range(count):
        command, size = struct.unpack_from("<II", data, at)
        if command == _SYMBOL_TABLE:
            table, number, start, room = struct.unpack_from("<IIII", data, at + 8)
            symbols = tuple(_macho_symbols(data[table : table + 16 * number], data[start : start + room]))
        elif command == _BUILD_VERSION:
            (platform,) = struct.unpack_from("<I", data, at + 8)
            named += f" for {MACHO_PLATFORMS.get(platform, f'platform {platform}')}"
        if size < 8:
            raise ValueError(f"a load command of {size} bytes")
        at += size
    return ObjectFile("Mach-O", named, tuple(symbols))


def _macho_symbols(table: bytes, names: bytes) -> Iterator[Symbol]:
    for at, kind, _section, description, value in struct.Struct("<IBBHQ").iter_unpack(table):
        # An undefined symbol with a value is a common one: C's `int counter;`.
        defined = kind & _TYPE != 0 or value != 0
        if not kind & _STAB and kind & _EXTERNAL and defined:
            yield Symbol(_text(names, at), bool(description & _WEAK_DEFINITION))


def _text(names: bytes, at: int) -> str:
    return names[at : names.index(b"\0", at)].decode()
