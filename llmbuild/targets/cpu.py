"""This machine's CPU as LLVM names it, for native targets."""

from __future__ import annotations

import os
from pathlib import Path

from llmbuild.errors import ToolchainError

# The x86-64 psABI levels by the flags of /proc/cpuinfo, the highest first ("abm" is LZCNT, "pni" is SSE3).
_V2 = frozenset({"cx16", "lahf_lm", "popcnt", "pni", "sse4_1", "sse4_2", "ssse3"})
_V3 = _V2 | frozenset({"abm", "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe", "xsave"})
_V4 = _V3 | frozenset({"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"})
_LEVELS = (("x86-64-v4", _V4), ("x86-64-v3", _V3), ("x86-64-v2", _V2))

# Features beyond a level that change the code of tensor programs: the kernel's name, LLVM's name.  Those of AVX-512 are
# used only with the whole of v4.  AMX is left out: it needs a permission from the kernel at run time.
_AVX_EXTRAS = (
    ("avx_vnni", "avxvnni"),
    ("avx_vnni_int8", "avxvnniint8"),
    ("avx_ne_convert", "avxneconvert"),
    ("avx_ifma", "avxifma"),
)
_AVX512_EXTRAS = (
    ("avx512ifma", "avx512ifma"),
    ("avx512vbmi", "avx512vbmi"),
    ("avx512_vbmi2", "avx512vbmi2"),
    ("avx512_vnni", "avx512vnni"),
    ("avx512_bitalg", "avx512bitalg"),
    ("avx512_vpopcntdq", "avx512vpopcntdq"),
    ("avx512_bf16", "avx512bf16"),
    ("avx512_fp16", "avx512fp16"),
)


def native_cpu(triple: str, cpuinfo: Path = Path("/proc/cpuinfo")) -> tuple[str, tuple[str, ...]]:
    """LLVM's CPU level and further features (`+avx512bf16`) of this machine, from the flags that every core has.

    Raises ToolchainError when the triple is not of this machine's architecture or the flags cannot be read.
    """
    fix = "use a target with a named cpu, or write one in targets/"
    machine = os.uname().machine
    if triple.split("-", 1)[0] not in ("x86_64", "amd64") or machine.lower() not in ("x86_64", "amd64"):
        raise ToolchainError(
            "a native target can be built on a machine of its own kind only",
            why=f"the target is {triple}, this machine is {machine}; CPU detection knows x86-64",
            fix=fix,
        )
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise ToolchainError(f"cannot tell this machine's CPU: {cpuinfo}: {error.strerror}", fix=fix) from None
    cores = [frozenset(line.partition(":")[2].split()) for line in lines if line.partition(":")[0].strip() == "flags"]
    if not cores:
        raise ToolchainError(f"cannot tell this machine's CPU: {cpuinfo} lists no flags", fix=fix)
    flags = frozenset.intersection(*cores)
    level = next((name for name, needed in _LEVELS if needed <= flags), "x86-64")
    extras: list[tuple[str, str]] = []
    if level in ("x86-64-v3", "x86-64-v4"):
        extras += _AVX_EXTRAS
    if level == "x86-64-v4":
        extras += _AVX512_EXTRAS
    return level, tuple(f"+{llvm}" for kernel, llvm in extras if kernel in flags)
