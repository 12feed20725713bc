"""Import libraries: the description that a Windows linker requires of a DLL that it does not have.

An archive of short import objects (PE format specification, "Import Library Format"): one symbol and the DLL's name a
member, found through the archive's symbol table.  LLVM's linker makes the import tables of such members by itself.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from llmbuild.linkers.ar import HEADER_SIZE, MAGIC, header

MACHINES = {"x86_64": 0x8664, "aarch64": 0xAA64}
"""IMAGE_FILE_MACHINE_AMD64 and _ARM64."""

_BY_NAME = 1 << 2
"""IMPORT_OBJECT_NAME in the name field, above the two bits of the type, which is IMPORT_OBJECT_CODE (0)."""


def write_import_library(dll: str, symbols: Sequence[str], arch: str) -> bytes:
    """The bytes of an import library of `dll` for code symbols; they depend on the arguments alone."""
    members = [_short_import(dll, symbol, MACHINES[arch]) for symbol in sorted(symbols)]
    entries = [f"{prefix}{symbol}".encode() for symbol in sorted(symbols) for prefix in ("__imp_", "")]
    names = b"".join(entry + b"\0" for entry in entries)
    table_size = 4 + 4 * len(entries) + len(names)
    at = len(MAGIC) + HEADER_SIZE + table_size + table_size % 2
    offsets = []
    for member in members:
        offsets += [at, at]  # The thunk and the pointer are of one member.
        at += HEADER_SIZE + len(member) + len(member) % 2
    table = struct.pack(f">I{len(offsets)}I", len(offsets), *offsets) + names
    return MAGIC + _member("/", table) + b"".join(_member("import/", member) for member in members)


def _short_import(dll: str, symbol: str, machine: int) -> bytes:
    names = symbol.encode() + b"\0" + dll.encode() + b"\0"
    # Signature 0, 0xFFFF; version, machine, time, size of the names, ordinal, type.
    return struct.pack("<HHHHIIHH", 0, 0xFFFF, 0, machine, 0, len(names), 0, _BY_NAME) + names


def _member(name: str, data: bytes) -> bytes:
    return header(name, len(data), mode=100644) + data + b"\n" * (len(data) % 2)
