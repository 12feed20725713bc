"""Kernels for levels of the CPU: their products, the questions that a library asks, and which kernel it calls then."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tvm.script import tirx as T

from llmbuild.compiler.kernels.cpu import packed as packed_kernels
from llmbuild.compiler.kernels.cpu.instructions import of_levels, of_target
from llmbuild.compiler.kernels.cpu.instructions.avx2 import Avx2
from llmbuild.compiler.kernels.cpu.instructions.dotprod import DotProduct
from llmbuild.compiler.kernels.cpu.instructions.i8mm import MatrixProduct
from llmbuild.compiler.kernels.cpu.instructions.instructions import Instructions, Parts
from llmbuild.compiler.kernels.cpu.instructions.neon import Neon
from llmbuild.compiler.kernels.cpu.instructions.vnni import Avx512Vnni, AvxVnni
from llmbuild.compiler.kernels.cpu.rounding import Rounding
from llmbuild.compiler.levels.level import Level
from llmbuild.compiler.levels.x86_64 import AVX512_VNNI, AVX_VNNI
from llmbuild.compiler.passes import levels as passes
from tests.compiler.test_cpu_kernels import DTYPES, Q4, check, packed, rounded
from tests.helpers.primfunc import compile_function
from tests.helpers.tiny_library import HOST

X86 = "x86_64-unknown-linux-gnu"


def flags() -> set[str]:
    """What Linux says of this machine's CPU; nothing elsewhere."""
    if sys.platform != "linux":
        return set()
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((set(line.partition(":")[2].split()) for line in lines if line.startswith("flags")), set())


HERE = {
    level: needed <= flags()
    for level, needed in (
        (AVX512_VNNI, {"avx512f", "avx512bw", "avx512dq", "avx512cd", "avx512vl", "avx512_vnni"}),
        (AVX_VNNI, {"avx2", "avx_vnni"}),
    )
}
"""Which levels this machine's CPU has."""


@dataclass(frozen=True, slots=True)
class Emulated:
    """VNNI's products of bytes in operations that every CPU has."""

    like: AvxVnni

    def __getattr__(self, name: str) -> Any:
        return getattr(self.like, name)

    def add_bytes(self, start: Any | None, parts: Parts) -> Any:
        sums = T.broadcast(T.int32(0), self.like.lanes) if start is None else start
        for weights, x in parts:
            sums = added(self.like.lanes, sums, weights, x)
        return sums

    def add_unfinished(self, sums: Any, weights: Any, x: Any) -> Any:
        return added(self.like.tile_words, sums, weights, x)


def added(lanes: int, sums: Any, weights: Any, x: Any) -> Any:
    """Words and the products of the unsigned bytes of others with signed ones."""

    def wide(value: int) -> Any:
        return T.broadcast(T.int32(value), lanes)

    weights, x = (T.reinterpret(f"int32x{lanes}", values) for values in (weights, x))
    for index in range(4):
        weight = T.bitwise_and(T.shift_right(weights, wide(8 * index)), wide(255))
        sums = sums + weight * T.shift_right(T.shift_left(x, wide(24 - 8 * index)), wide(24))
    return sums


def products(by: Any, planes: int, dtype: str, k: int, features: tuple[str, ...] = ()) -> None:
    """Rows by some instructions are exact products of what x is rounded to, and the bits are AVX2's where that rounds."""
    many, one = (
        compile_function(packed_kernels.matrix_kernel(Rounding(planes, each), Q4, k, 1, 0, dtype, dtype, dtype), wanted)
        for each, wanted in ((by, features), (Avx2(), ()))
    )
    rng = np.random.default_rng(k)
    for n, rows in ((17, 1), (34, 7), (48, 29)):
        words, scales, weight = packed(n, k, DTYPES[dtype], rng, Q4)
        x = (rng.standard_normal((1, rows, k)) * 10.0 ** rng.integers(-4, 4, (1, rows, k))).astype(DTYPES[dtype])
        y, base = (np.zeros((1, rows, n), DTYPES[dtype]) for _ in range(2))
        many(x, words, scales, y)
        one(x, words, scales, base)
        check(y, rounded(x, planes, Q4.group_size), weight, dtype)
        if planes == 1 or rows <= 6:
            assert np.array_equal(y, base)


@pytest.mark.parametrize(
    ("like", "planes", "dtype", "k"),
    [(Avx512Vnni(), 2, "float32", 192), (Avx512Vnni(), 1, "float16", 64), (AvxVnni(), 2, "float16", 192)],
)
def test_vnni_emulated(like: AvxVnni, planes: int, dtype: str, k: int) -> None:
    products(Emulated(like), planes, dtype, k)


@pytest.mark.parametrize("by", [Avx512Vnni(), AvxVnni()])
@pytest.mark.parametrize("planes", [1, 2])
def test_vnni(by: AvxVnni, planes: int) -> None:
    if not HERE[by.level]:
        pytest.skip(f"this CPU has no {by.level.name}")
    products(by, planes, "float32", 192, by.features)


@pytest.mark.parametrize(("by", "vex"), [(Avx512Vnni(), False), (AvxVnni(), True)])
def test_encodings(by: AvxVnni, vex: bool) -> None:
    """Without AVX-512 all instructions are of the older coding, which has neither 512 bits nor masks."""
    import tvm

    kernel = packed_kernels.matrix_kernel(Rounding(2, by), Q4, 64, 1, 0, "float32", "float32", "float32")
    module = tvm.IRModule({"main": kernel.with_attr("global_symbol", "main")})
    lines = tvm.tirx.build(module, target=by.level.target(tvm.target.Target(HOST))).inspect_source("asm").splitlines()
    products = [line for line in lines if "vpdpbusd" in line]
    assert products
    assert {"{vex}" in line for line in products} == {vex}
    assert any("%zmm" in line or "%k1" in line for line in lines) != vex


@pytest.mark.parametrize(
    ("triple", "cpu", "base", "levels"),
    [
        (X86, "x86-64-v3", Avx2(), {"avx512vnni", "avxvnni"}),
        (X86, "x86-64-v2", None, set()),
        # A target that has one needs no other.
        (X86, "icelake-server", Avx512Vnni(), set()),
        (X86, "sapphirerapids", Avx512Vnni(), set()),
        (X86, "alderlake", AvxVnni(), set()),
        ("x86_64-apple-macosx13.0.0", "x86-64-v3", Avx2(), {"avx512vnni", "avxvnni"}),
        ("aarch64-unknown-linux-gnu", "generic", Neon(), {"i8mm", "dotprod"}),
        ("aarch64-linux-android", "generic", Neon(), {"i8mm", "dotprod"}),
        ("aarch64-apple-macosx13.0.0", "generic", Neon(), set()),
        # One object only.
        ("x86_64-pc-windows-msvc", "x86-64-v3", Avx2(), set()),
    ],
)
def test_which_a_target_has(triple: str, cpu: str, base: Instructions | None, levels: set[str]) -> None:
    import tvm

    target = tvm.target.Target({"kind": "llvm", "mtriple": triple, "mcpu": cpu})
    assert of_target(target) == base
    assert {level.name for level in of_levels(target)} == levels


def test_which_rows_gain() -> None:
    """Products of matrices are for many rows."""
    assert packed_kernels.serves_level(MatrixProduct(), Q4, 128, single=False)
    assert not packed_kernels.serves_level(MatrixProduct(), Q4, 128, single=True)
    assert packed_kernels.serves_level(DotProduct(), Q4, 128, single=True)


def answers_of(text: str, level: Level) -> list[int]:
    """What a library hears that asks twice by LLVM's text for a level."""
    import tvm

    @T.prim_func(s_tir=True)
    def ask(answers: T.Buffer((2,), "int32")) -> None:
        T.func_attr({"global_symbol": "ask"})
        with T.attr(0, "pragma_import_llvm", text):
            for index in T.serial(2):
                answers[index] = T.call_extern("int32", level.symbol)

    answers = tvm.runtime.tensor(np.full(2, -1, np.int32))
    tvm.compile(ask, target=tvm.target.Target(HOST))["ask"](answers)
    return list(answers.numpy())


@pytest.mark.parametrize("level", [AVX512_VNNI, AVX_VNNI], ids=lambda level: level.name)
def test_what_the_cpu_says(level: Level) -> None:
    """The question's answer is that of Linux, also the second time."""
    if not flags():
        pytest.skip("Linux on x86-64 only")
    assert answers_of(level.text, level) == [HERE[level]] * 2


YMM, ZMM = 0x7, 0xE7
"""What operating systems keep: XCR0."""
HASWELL = {"one2": 1 << 27, "seven1": 1 << 5}
ALDER_LAKE = {**HASWELL, "more0": 1 << 4}
CASCADE_LAKE = {**HASWELL, "seven1": 1 << 5 | 1 << 16 | 1 << 17 | 1 << 28 | 1 << 30 | 1 << 31, "seven2": 1 << 11}


@pytest.mark.parametrize(
    ("level", "cpu", "kept", "answer"),
    [
        (AVX_VNNI, HASWELL, YMM, 0),
        (AVX_VNNI, ALDER_LAKE, YMM, 1),
        # Its bit elsewhere, an operating system without AVX's registers, and one that does not tell.
        (AVX_VNNI, CASCADE_LAKE, ZMM, 0),
        (AVX_VNNI, ALDER_LAKE, 0x3, 0),
        (AVX_VNNI, {**ALDER_LAKE, "one2": 0}, YMM, 0),
        (AVX512_VNNI, ALDER_LAKE, YMM, 0),
        (AVX512_VNNI, CASCADE_LAKE, ZMM, 1),
        (AVX512_VNNI, CASCADE_LAKE, YMM, 0),
    ],
)
def test_what_other_cpus_say(level: Level, cpu: Mapping[str, int], kept: int, answer: int) -> None:
    """The question as it is, but with what cpuid and xgetbv would say there: registers by the parts of leaves."""
    leaves = {(1, 0): "one", (7, 0): "seven", (7, 1): "more"}

    def registers(leaf: re.Match[str]) -> str:
        name = leaves[int(leaf[1]), int(leaf[2])]
        numbers = ", ".join(f"i32 {cpu.get(f'{name}{index}', 0)}" for index in range(4))
        return f"select i1 true, {{ i32, i32, i32, i32 }} {{ {numbers} }}, {{ i32, i32, i32, i32 }} zeroinitializer"

    states = f"select i1 true, {{ i32, i32 }} {{ i32 {kept}, i32 0 }}, {{ i32, i32 }} zeroinitializer"
    text, asked = re.subn(r'call [^=]*asm sideeffect "cpuid", "[^"]*"\(i32 (\d), i32 (\d)\)', registers, level.text)
    text, kept_asked = re.subn(r'call [^=]*asm sideeffect "xgetbv", "[^"]*"\(i32 0\)', states, text)
    assert (asked, kept_asked) == (3, 1)
    assert answers_of(text, level) == [answer] * 2


def writes(number: int) -> Any:
    """A kernel that writes a number."""

    @T.prim_func(s_tir=True)
    def kernel(y: T.Buffer((1,), "int32")) -> None:
        y[0] = T.int32(number)

    return kernel


@pytest.mark.parametrize(("answers", "called"), [((0, 0), 0), ((0, 1), 2), ((1, 0), 1), ((1, 1), 1)])
def test_the_best_is_called(
    answers: tuple[int, int], called: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tvm

    made = {
        name: Level(name, "x86_64", (), f"ret i1 {'true' if answer else 'false'}")
        for name, answer in zip(("first", "second"), answers, strict=True)
    }
    monkeypatch.setattr(passes, "LEVELS", made)
    kernel = passes.with_levels(writes(0), dict.fromkeys(made.values(), writes(0))).with_attr("global_symbol", "tell")
    module = passes.DispatchLevels().transform_module(tvm.IRModule({"tell": kernel}), None)
    parts = {name.name_hint: function for name, function in module.functions_items()}
    parts |= {
        f"tell_{name}": writes(index + 1).with_attr("global_symbol", f"tell_{name}") for index, name in enumerate(made)
    }
    for name, function in parts.items():
        tvm.tirx.build(tvm.IRModule({name: function}), target=tvm.target.Target(HOST)).write_to_file(
            str(tmp_path / f"{name}.o")
        )
    objects = sorted(map(str, tmp_path.glob("*.o")))
    subprocess.run(["cc", "-shared", "-o", str(tmp_path / "all.so"), *objects], check=True)
    y = tvm.runtime.tensor(np.full(1, -1, np.int32))
    tvm.runtime.load_module(str(tmp_path / "all.so"))["tell"](y)
    assert list(y.numpy()) == [called]
