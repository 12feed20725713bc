"""Weak symbols of objects for Windows: they get a prefix, and nothing else of the object changes."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import NamedTuple

import lief
import pytest

from llmbuild.linkers import coff
from tests.helpers.objects import write_objects


class Symbol(NamedTuple):
    name: str
    value: int
    section: int
    weak: bool


def symbols(data: bytes, path: Path) -> list[Symbol]:
    """The symbols as an independent reader sees them."""
    path.write_bytes(data)
    binary = lief.COFF.parse(str(path))
    assert isinstance(binary, lief.COFF.Binary)
    weak = lief.COFF.Symbol.STORAGE_CLASS.WEAK_EXTERNAL
    return [Symbol(str(one.name), one.value, one.section_idx, one.storage_class == weak) for one in binary.symbols]


@pytest.mark.parametrize("triple", ["x86_64-pc-windows-msvc", "aarch64-pc-windows-msvc"])
def test_weak_symbols_get_the_prefix(triple: str, tmp_path: Path) -> None:
    weak = set()
    for path in write_objects(triple, tmp_path / "objects"):
        data = path.read_bytes()
        assert coff.is_object(data)
        changed = coff.prefix_weak_symbols(data, "qwen2_q4f16_1_")
        before, after = symbols(data, tmp_path / "before.o"), symbols(changed, tmp_path / "after.o")
        assert after == [one._replace(name="qwen2_q4f16_1_" * one.weak + one.name) for one in before]
        weak.update(one.name for one in before if one.weak)
        # Code and relocations lie before the symbols.
        (table,) = struct.unpack_from("<I", data, 8)
        assert changed[:table] == data[:table]
    assert weak == {"__truncsfhf2", "__extendhfsf2"}


def test_a_name_that_stands_in_the_symbol_itself(tmp_path: Path) -> None:
    header = struct.pack("<HHIIIHH", 0x8664, 0, 0, 20, 3, 0, 0)
    own = struct.pack("<8sIhHBB", b"eightchr", 7, -1, 0, 2, 0)
    weak = struct.pack("<8sIhHBB", b"short", 0, 0, 0, 105, 1) + struct.pack("<II10x", 0, 3)
    strings = struct.pack("<I", 4)
    changed = coff.prefix_weak_symbols(header + own + weak + strings, "a_")
    assert symbols(changed, tmp_path / "changed.o") == [
        Symbol("eightchr", 7, -1, weak=False),
        Symbol("a_short", 0, 0, weak=True),
    ]
    assert changed.endswith(struct.pack("<I", 12) + b"a_short\0")


@pytest.mark.parametrize("triple", ["x86_64-unknown-linux-gnu", "arm64-apple-ios17.0.0"])
def test_other_objects_are_told_apart(triple: str, tmp_path: Path) -> None:
    assert not any(coff.is_object(path.read_bytes()) for path in write_objects(triple, tmp_path))
    assert not coff.is_object(b"")
