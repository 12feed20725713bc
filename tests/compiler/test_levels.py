"""Kernels for levels of the CPU: their products, the questions that a library asks, and which kernel it calls then."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tvm.script import tirx as T

from llmbuild.compiler.kernels.cpu import packed as packed_kernels
from llmbuild.compiler.kernels.cpu.instructions import of_levels, of_target
from llmbuild.compiler.kernels.cpu.instructions.avx2 import Avx2
from llmbuild.compiler.kernels.cpu.instructions.instructions import Instructions, Parts
from llmbuild.compiler.kernels.cpu.instructions.vnni import Avx512Vnni
from llmbuild.compiler.kernels.cpu.rounding import Rounding
from llmbuild.compiler.levels.level import Level
from llmbuild.compiler.levels.x86_64 import AVX512_VNNI
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


HERE = {"avx512f", "avx512bw", "avx512dq", "avx512cd", "avx512vl", "avx512_vnni"} <= flags()


@dataclass(frozen=True, slots=True)
class Emulated:
    """VNNI's products of bytes in operations that every CPU has."""

    like: Avx512Vnni

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


@pytest.mark.parametrize(("planes", "dtype", "k"), [(2, "float32", 192), (1, "float16", 64)])
def test_vnni_emulated(planes: int, dtype: str, k: int) -> None:
    products(Emulated(Avx512Vnni()), planes, dtype, k)


@pytest.mark.skipif(not HERE, reason="this CPU has no AVX-512 VNNI")
@pytest.mark.parametrize("planes", [1, 2])
def test_vnni(planes: int) -> None:
    products(Avx512Vnni(), planes, "float32", 192, AVX512_VNNI.features)


@pytest.mark.parametrize(
    ("triple", "cpu", "base", "levels"),
    [
        (X86, "x86-64-v3", Avx2(), {"avx512vnni"}),
        (X86, "x86-64-v2", None, set()),
        # A target that has one needs no other.
        (X86, "icelake-server", Avx512Vnni(), set()),
        ("x86_64-apple-macosx13.0.0", "x86-64-v3", Avx2(), {"avx512vnni"}),
        # One object only.
        ("x86_64-pc-windows-msvc", "x86-64-v3", Avx2(), set()),
    ],
)
def test_which_a_target_has(triple: str, cpu: str, base: Instructions | None, levels: set[str]) -> None:
    import tvm

    target = tvm.target.Target({"kind": "llvm", "mtriple": triple, "mcpu": cpu})
    assert of_target(target) == base
    assert {level.name for level in of_levels(target)} == levels


def test_what_the_cpu_says() -> None:
    """The question's answer is that of Linux, also the second time."""
    import tvm

    if not flags():
        pytest.skip("Linux on x86-64 only")

    @T.prim_func(s_tir=True)
    def ask(answers: T.Buffer((2,), "int32")) -> None:
        T.func_attr({"global_symbol": "ask"})
        with T.attr(0, "pragma_import_llvm", AVX512_VNNI.text):
            for index in T.serial(2):
                answers[index] = T.call_extern("int32", AVX512_VNNI.symbol)

    answers = tvm.runtime.tensor(np.full(2, -1, np.int32))
    tvm.compile(ask, target=tvm.target.Target(HOST))["ask"](answers)
    assert list(answers.numpy()) == [HERE] * 2


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
