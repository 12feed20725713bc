"""Several libraries as one static archive: `libmodel_iphone.a` and `libmodel_android.a`, which MLC's applications link.

The libraries are the .tar artifacts (linkers/archive.py): objects with the system-library prefix in their names and symbols.
The archive is in the form that the linkers of its objects read: System V's for ELF, BSD's with Apple's alignment for Mach-O, each
with the index of symbols that a linker looks members up in.  It is written here and not by `ar`, so that a machine without
a toolchain makes it too, and so that it has no times, owners or modes.  Sources: ar(5) of FreeBSD, Apple's mach-o/ranlib.h, and
what llvm-ar writes.
"""

from __future__ import annotations

import itertools
import struct
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from llmbuild.errors import InputError, UsageError
from llmbuild.linkers.ar import HEADER_SIZE, MAGIC, header
from llmbuild.linkers.object_file import ObjectFile, read_object

LARGEST = 2**32 - 1
"""The index has offsets of 32 bits."""

PREFIX_FIX = 'write system-lib-prefix = "{model}_{quantization}_" in the table of the platform'

_ALIGNMENT = 8
"""Apple's linkers map 64-bit members in place."""


@dataclass(frozen=True, slots=True)
class _Member:
    name: str
    library: str
    data: bytes
    object: ObjectFile


def join_archives(archives: Mapping[str, Path], out: Path) -> None:
    """Write the static archive `out` with the objects of .tar libraries; the keys are the libraries' names in messages.

    The bytes depend on the set of objects alone.  Raises UsageError where two libraries define the same symbol or are for
    different machines, InputError where a library is no archive of objects.
    """
    members = sorted((one for name, path in archives.items() for one in _read(name, path)), key=lambda one: one.name)
    if not members:
        raise InputError("no objects to join", why="the libraries have none")
    _check_machines(members)
    _check_symbols(members)
    write = _write_gnu if members[0].object.format == "ELF" else _write_darwin
    out.write_bytes(write(members))


def _read(library: str, path: Path) -> list[_Member]:
    members = []
    try:
        with tarfile.open(path, "r:") as archive:
            for entry in archive.getmembers():
                file = archive.extractfile(entry)
                if file is None or "/" in entry.name:
                    raise InputError("the library has a member that is no file", where=f"{library}: {entry.name}")
                data = file.read()
                members.append(_Member(entry.name, library, data, read_object(data, f"{library}: {entry.name}")))
    except tarfile.TarError as error:
        raise InputError("the library is no .tar archive", where=library, why=str(error)) from error
    return members


def _check_machines(members: Sequence[_Member]) -> None:
    first = members[0]
    for other in members:
        if (other.object.format, other.object.machine) != (first.object.format, first.object.machine):
            raise UsageError(
                f"'{first.library}' and '{other.library}' do not go into one archive",
                why=f"one is {first.object.format} of {first.object.machine}, "
                f"the other {other.object.format} of {other.object.machine}",
                fix="make a package for each",
            )


def _check_symbols(members: Sequence[_Member]) -> None:
    """Each strong symbol once; weak ones may be in every library, as TVM's conversions of 16-bit floats are."""
    owners: dict[str, str] = {}
    for member in members:
        for symbol in member.object.symbols:
            if symbol.weak:
                continue
            other = owners.setdefault(symbol.name, member.library)
            if other != member.library:
                name = symbol.name.removeprefix("_") if member.object.format == "Mach-O" else symbol.name
                raise UsageError(
                    f"'{other}' and '{member.library}' both define '{name}'",
                    why="an application links both, and a linker takes a symbol once",
                    fix=PREFIX_FIX,
                )


def _write_gnu(members: Sequence[_Member]) -> bytes:
    """System V's form, as GNU's and LLVM's linkers read it."""
    table = bytearray()
    names = []
    for member in members:
        short = f"{member.name}/"
        if len(short) > 16:
            # A longer name stands in a table, at an offset.
            short = f"/{len(table)}"
            table += f"{member.name}/\n".encode()
        names.append(short)
    texts = b"".join(symbol.name.encode() + b"\0" for member in members for symbol in member.object.symbols)
    count = sum(len(member.object.symbols) for member in members)
    index = 4 + 4 * count + len(texts)
    table += b"\n" * (len(table) % 2)
    head = f"{'//':<48}{len(table):<10}`\n".encode() + table if table else b""
    at = len(MAGIC) + HEADER_SIZE + index + index % 2 + len(head)
    offsets, body = [], []
    for name, member in zip(names, members, strict=True):
        offsets += [at] * len(member.object.symbols)
        body.append(header(name, len(member.data)) + member.data + b"\n" * (len(member.data) % 2))
        at += len(body[-1])
    _check_size(at)
    symbols = struct.pack(f">I{count}I", count, *offsets) + texts + b"\0" * (index % 2)
    return b"".join((MAGIC, header("/", index + index % 2, mode=0), symbols, head, *body))


def _write_darwin(members: Sequence[_Member]) -> bytes:
    """BSD's form with Apple's alignment: names before the data, and both the data's offset and its size multiples of 8."""
    names = [symbol.name.encode() + b"\0" for member in members for symbol in member.object.symbols]
    size = 8 + 8 * len(names) + sum(map(len, names))
    padding = b"\0" * (-size % _ALIGNMENT)
    at = len(MAGIC)
    at += len(_darwin_member("__.SYMDEF", bytes(size) + padding, at))
    offsets, body = [], []
    for member in members:
        offsets += [at] * len(member.object.symbols)
        body.append(_darwin_member(member.name, member.data, at))
        at += len(body[-1])
    _check_size(at)
    starts = itertools.accumulate(map(len, names), initial=0)
    entries = (number for pair in zip(starts, offsets, strict=False) for number in pair)
    ranlibs = struct.pack(f"<I{2 * len(names)}I", 8 * len(names), *entries)
    table = ranlibs + struct.pack("<I", sum(map(len, names))) + b"".join(names) + padding
    return b"".join((MAGIC, _darwin_member("__.SYMDEF", table, len(MAGIC), mode=0), *body))


def _darwin_member(name: str, data: bytes, at: int, mode: int = 644) -> bytes:
    spelled = name.encode()
    spelled += b"\0" * (-(at + HEADER_SIZE + len(spelled)) % _ALIGNMENT)
    data += b"\n" * (-len(data) % _ALIGNMENT)
    return header(f"#1/{len(spelled)}", len(spelled) + len(data), mode) + spelled + data


def _check_size(size: int) -> None:
    if size > LARGEST:
        raise UsageError(
            f"the archive would have {size} bytes",
            why=f"its index has room for offsets up to {LARGEST}",
            fix="divide the models among two packages",
        )
