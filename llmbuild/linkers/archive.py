"""Archives: a .tar with the objects, which a mobile application's own build links into one binary.

Members are sorted and carry no times, owners or permissions of the machine, so that equal objects make equal archives.
The archive is not compressed: every consumer's `tar` reads both, and a compressor's version would be part of the bytes.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from llmbuild.canonical import Json
from llmbuild.linkers import coff

IDENTITY = "llmbuild-tar"
"""The writer is this module, whose source is in the key of the link action."""


def carries_name(_: Mapping[str, Json]) -> bool:
    """The members have names, the archive has none."""
    return False


def identity(_: Mapping[str, Json]) -> str:
    """The same for every target."""
    return IDENTITY


def parts(_: Mapping[str, Json]) -> None:
    """No file besides this module."""


def link(_: Mapping[str, Json], objects: Sequence[Path], out: Path, _scratch: Path, prefix: str, _name: str) -> None:
    """Write the archive `out`; a prefix keeps two models apart that are unpacked into one directory."""
    write(objects, out, prefix)


def write(objects: Sequence[Path], out: Path, prefix: str = "") -> None:
    """Write `out` with one member an object, named prefix + file name: two models may be unpacked into one directory."""
    with tarfile.open(out, "w", format=tarfile.USTAR_FORMAT) as archive:
        for path in sorted(objects, key=lambda path: path.name):
            data = path.read_bytes()
            if prefix and coff.is_object(data):
                data = coff.prefix_weak_symbols(data, prefix)
            member = tarfile.TarInfo(prefix + path.name)
            member.size = len(data)
            member.mode = 0o644
            archive.addfile(member, io.BytesIO(data))
