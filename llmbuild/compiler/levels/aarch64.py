"""64-bit ARM: Linux says what the CPU has (getauxval(3), AT_HWCAP; the bits are of asm/hwcap.h)."""

from __future__ import annotations

from llmbuild.compiler.levels.level import Level

_FIRST, _SECOND = 16, 26
"""AT_HWCAP and AT_HWCAP2."""


def _question(bits: dict[int, int]) -> str:
    """Whether all of some bits are there, by the vector that they are in."""
    conditions, last = "", "true"
    for vector, bit in bits.items():
        conditions += (
            f"  %all{vector} = call i64 @getauxval(i64 {vector})\n"
            f"  %some{vector} = and i64 %all{vector}, {1 << bit}\n"
            f"  %is{vector} = icmp ne i64 %some{vector}, 0\n"
            f"  %has{vector} = and i1 {last}, %is{vector}\n"
        )
        last = f"%has{vector}"
    return f"""
{conditions}
  ret i1 {last}
"""


def _level(name: str, features: tuple[str, ...], bits: dict[int, int]) -> Level:
    return Level(name, "aarch64-.*linux", features, _question(bits), "declare i64 @getauxval(i64)")


DOTPROD = _level("dotprod", ("dotprod",), {_FIRST: 20})
I8MM = _level("i8mm", ("i8mm", "dotprod"), {_FIRST: 20, _SECOND: 13})
