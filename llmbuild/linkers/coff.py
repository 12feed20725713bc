"""Helpers in objects for Windows that each model of a binary brings: they get the model's prefix.

TVM puts conversions of 16-bit floats into every host object as weak symbols.  Linkers of ELF and Mach-O keep one of
several; Windows' linkers call a weak symbol that two objects define a duplicate.  The layout is that of Microsoft's
"PE Format", sections "COFF File Header", "COFF Symbol Table" and "COFF String Table".
"""

from __future__ import annotations

import struct

from llmbuild.linkers.import_library import MACHINES

_HEADER = struct.Struct("<HHIIIHH")
"""Machine, number of sections, time, offset of the symbol table, number of symbols, size of the optional header, flags."""

_SYMBOL = struct.Struct("<8sIhHBB")
"""Name, or four zeros and an offset in the string table; value, section, type, storage class, number of records that follow."""

_WEAK_EXTERNAL = 105


def is_object(data: bytes) -> bool:
    """Whether this is an object for Windows, of a machine that llmbuild builds for."""
    return len(data) >= _HEADER.size and _HEADER.unpack_from(data)[0] in MACHINES.values()


def prefix_weak_symbols(data: bytes, prefix: str) -> bytes:
    """The object with `prefix` before the name of each weak symbol.  Code refers to symbols by number and stays as it is."""
    _machine, _sections, _time, table, count, _optional, _flags = _HEADER.unpack_from(data)
    strings = table + count * _SYMBOL.size
    (size,) = struct.unpack_from("<I", data, strings)
    symbols, names = bytearray(data[table:strings]), bytearray(data[strings : strings + size])
    at = 0
    while at < len(symbols):
        name, value, section, kind, storage, following = _SYMBOL.unpack_from(symbols, at)
        if storage == _WEAK_EXTERNAL:
            offset = struct.pack("<II", 0, len(names))
            names += prefix.encode() + _name(name, names) + b"\0"
            _SYMBOL.pack_into(symbols, at, offset, value, section, kind, storage, following)
        at += _SYMBOL.size * (1 + following)
    struct.pack_into("<I", names, 0, len(names))
    return b"".join((data[:table], symbols, names, data[strings + size :]))


def _name(field: bytes, names: bytearray) -> bytes:
    zeros, offset = struct.unpack("<II", field)
    if zeros:
        return field.rstrip(b"\0")
    return bytes(names[offset : names.index(b"\0", offset)])
