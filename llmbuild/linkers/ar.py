"""The format of static archives (ar(5) of FreeBSD): what an archive begins with, and what stands before each member."""

from __future__ import annotations

MAGIC = b"!<arch>\n"

HEADER_SIZE = 60
"""Bytes of a member's header."""


def header(name: str, size: int, mode: int = 644) -> bytes:
    """A member's header: its name as the form of the archive spells it, no time, owner or group, the mode in octal digits, and
    the size in bytes of what follows."""
    return f"{name:<16}{0:<12}{0:<6}{0:<6}{mode:<8}{size:<10}`\n".encode()
