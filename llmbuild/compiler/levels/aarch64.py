"""64-bit ARM: Linux says what the CPU has (getauxval(3), AT_HWCAP; the bits are of asm/hwcap.h)."""

from __future__ import annotations

from llmbuild.compiler.levels.level import Level

_CAPABILITIES = 16
"""AT_HWCAP."""


def _question(bit: int) -> str:
    return f"""
  %all = call i64 @getauxval(i64 {_CAPABILITIES})
  %some = and i64 %all, {1 << bit}
  %has = icmp ne i64 %some, 0
  ret i1 %has
"""


DOTPROD = Level("dotprod", "aarch64-.*linux", ("dotprod",), _question(20), "declare i64 @getauxval(i64)")
