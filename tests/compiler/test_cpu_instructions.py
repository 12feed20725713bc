"""The instruction sets of products with rounded rows: which a target has, and those of ARM in emulated processors against NumPy.

AVX2's, which the machine that tests has, are in tests/compiler/test_cpu_kernels.py.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tvm.script import tirx as T

from llmbuild.compiler.kernels.cpu import packed as packed_kernels
from llmbuild.compiler.kernels.cpu import packed_nk_int8
from llmbuild.compiler.kernels.cpu.instructions import of_target
from llmbuild.compiler.kernels.cpu.instructions.avx2 import Avx2
from llmbuild.compiler.kernels.cpu.instructions.dotprod import DotProduct
from llmbuild.compiler.kernels.cpu.instructions.i8mm import MatrixProduct
from llmbuild.compiler.kernels.cpu.instructions.instructions import Instructions
from llmbuild.compiler.kernels.cpu.instructions.neon import Neon
from llmbuild.compiler.kernels.cpu.rounding import Rounding
from llmbuild.compiler.levels.aarch64 import DOTPROD, I8MM
from llmbuild.quantization.scheme import Scheme
from tests.compiler.test_cpu_kernels import DTYPES, Q3, Q4, check, packed, rounded
from tests.helpers import emulated


@pytest.mark.parametrize(
    ("triple", "cpu", "found"),
    [
        ("aarch64-unknown-linux-gnu", None, Neon()),
        ("aarch64-unknown-linux-gnu", "neoverse-n1", DotProduct()),
        ("aarch64-unknown-linux-gnu", "neoverse-v1", MatrixProduct()),
        ("aarch64-pc-windows-msvc", None, Neon()),
        ("x86_64-unknown-linux-gnu", "x86-64-v3", Avx2()),
        ("x86_64-unknown-linux-gnu", "x86-64-v2", None),
    ],
)
def test_which_a_target_has(triple: str, cpu: str | None, found: Instructions | None) -> None:
    import tvm

    named = {} if cpu is None else {"mcpu": cpu}
    assert of_target(tvm.target.Target({"kind": "llvm", "mtriple": triple, **named})) == found


@pytest.mark.skipif(emulated.MISSING is not None, reason=str(emulated.MISSING))
@pytest.mark.parametrize(
    ("by", "scheme", "planes", "dtype", "k"),
    [
        # Vectors of words that overlap, and by halves.
        (Neon(), Q4, 2, "float32", 192),
        (Neon(), Q3, 1, "float16", 200),
        (DotProduct(), Q4, 2, "float16", 192),
        (MatrixProduct(), Q4, 2, "float32", 128),
        *(
            pytest.param(by, *values, marks=pytest.mark.full)
            for by in (Neon(), DotProduct(), MatrixProduct())
            for values in (
                (Q4, 1, "float32", 576),
                (Q4, 2, "float16", 128),
                (Q4, 1, "float16", 320),
                (Q4, 2, "bfloat16", 256),
                (Q4, 2, "float32", 64),
                (Q4, 2, "float32", 96),
                (Q3, 2, "float32", 320),
            )
        ),
    ],
)
def test_rounded_rows_on_arm(by: Instructions, scheme: Scheme, planes: int, dtype: str, k: int, tmp_path: Path) -> None:
    """The products are exact of what x is rounded to, also the largest: all weights 15 (or 7), and x as large as a byte can."""
    rounding = Rounding(planes, by)
    made = packed_kernels.rounded(rounding.by, scheme, k)
    assert (made is packed_nk_int8.product) == (scheme is Q4 and k % 64 == 0 and k >= 128)
    multiply = emulated.emulated(
        packed_kernels.matrix_kernel(rounding, scheme, k, 1, 0, dtype, dtype, dtype),
        tmp_path / "kernel",
        *(("cortex-a53",) if by.level is None else ("max", by.features)),
    )
    rng = np.random.default_rng(k)
    many = made is packed_nk_int8.product and packed_nk_int8.rounds_many(rounding)
    for n in (17, 34):
        words, scales, weight = packed(n, k, DTYPES[dtype], rng, scheme)
        for rows in (1, 3, 7):
            x = (rng.standard_normal((1, rows, k)) * 10.0 ** rng.integers(-4, 4, (1, rows, k))).astype(DTYPES[dtype])
            x[0, 0, 40:80] = 0
            y = np.zeros((1, rows, n), DTYPES[dtype])
            multiply(x, words, scales, y)
            check(y, rounded(x, planes, scheme.group_size) if rows < 7 or many else x, weight, dtype)
            x = np.where(rng.random((1, rows, 1)) < 0.5, -3, 3).repeat(k, 2).astype(DTYPES[dtype])
            largest = np.repeat(abs(scales).astype(np.float32), scheme.group_size, 1)[:, :k] * (scheme.max_int + 1)
            multiply(x, np.full_like(words, 0xFFFFFFFF), abs(scales), y)
            check(y, x, largest, dtype)
    x[0, :, 50] = np.inf
    multiply(x, words, scales, y)
    assert not np.isfinite(y.astype(np.float32)).any()


@pytest.mark.skipif(emulated.MISSING is not None, reason=str(emulated.MISSING))
def test_what_arm_cpus_say(tmp_path: Path) -> None:
    """Which levels a library finds, on processors with none, with the first, and with both."""

    @T.prim_func(s_tir=True)
    def ask(answers: T.Buffer((2,), "int32")) -> None:
        with T.attr(0, "pragma_import_llvm", DOTPROD.text), T.attr(0, "pragma_import_llvm", I8MM.text):
            answers[0] = T.call_extern("int32", DOTPROD.symbol)
            answers[1] = T.call_extern("int32", I8MM.symbol)

    for cpu, expected in (("cortex-a53", [0, 0]), ("neoverse-n1", [1, 0]), ("max", [1, 1])):
        answers = np.full(2, -1, np.int32)
        emulated.emulated(ask, tmp_path / cpu, cpu)(answers)
        assert list(answers) == expected
