"""x86-64: the CPU says what it has (cpuid), and which registers the operating system keeps (xgetbv)."""

from __future__ import annotations

from llmbuild.compiler.levels.level import Level


def _asked(name: str, leaf: int, part: int = 0) -> str:
    """%name0 to %name3: eax, ebx, ecx and edx of a part of a leaf of cpuid."""
    registers = "={ax},={bx},={cx},={dx},{ax},{cx},~{dirflag},~{fpsr},~{flags}"
    numbers = "".join(
        f"  %{name}{index} = extractvalue {{ i32, i32, i32, i32 }} %{name}, {index}\n" for index in range(4)
    )
    return f'  %{name} = call {{ i32, i32, i32, i32 }} asm sideeffect "cpuid", "{registers}"(i32 {leaf}, i32 {part})\n{numbers}'


def _question(registers: int, bits: dict[str, int]) -> str:
    """Whether the operating system keeps the registers (bits of XCR0), and leaf 7 of cpuid has the bits: of its part 0 as %seven,
    of its part 1 as %more, which is zero where a CPU has no such part."""
    conditions, last = "", "%kept"
    for index, (register, bit) in enumerate(bits.items()):
        conditions += (
            f"  %bits{index} = and i32 %{register}, {bit}\n"
            f"  %has{index} = icmp eq i32 %bits{index}, {bit}\n"
            f"  %all{index} = and i1 {last}, %has{index}\n"
        )
        last = f"%all{index}"
    return f"""
{_asked("one", 1)}
  %osxsave = and i32 %one2, {1 << 27}
  %asks = icmp ne i32 %osxsave, 0
  br i1 %asks, label %ask, label %no
no:
  ret i1 false
ask:
  %state = call {{ i32, i32 }} asm sideeffect "xgetbv", "={{ax}},={{dx}},{{cx}},~{{dirflag}},~{{fpsr}},~{{flags}}"(i32 0)
  %low = extractvalue {{ i32, i32 }} %state, 0
  %saved = and i32 %low, {registers}
  %kept = icmp eq i32 %saved, {registers}
{_asked("seven", 7)}
{_asked("more", 7, 1)}
{conditions}
  ret i1 {last}
"""


AVX512_VNNI = Level(
    "avx512vnni",
    "x86_64-",
    ("avx512vnni", "avx512vl", "avx512bw", "avx512dq", "avx512cd"),
    # XMM, YMM, the masks and both parts of ZMM; F, DQ, CD, BW and VL, then VNNI.
    _question(0xE6, {"seven1": 1 << 16 | 1 << 17 | 1 << 28 | 1 << 30 | 1 << 31, "seven2": 1 << 11}),
)

AVX_VNNI = Level(
    "avxvnni",
    "x86_64-",
    ("avxvnni",),
    # XMM and YMM; AVX2, then AVX-VNNI.
    _question(0x6, {"seven1": 1 << 5, "more0": 1 << 4}),
)
