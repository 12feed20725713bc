"""Quick TVMScript makes the functions that TVM's own parser makes."""

from __future__ import annotations

from typing import Any

import tvm
import tvm_ffi
from tvm.script import tirx as T

from llmbuild.compiler.frames import quick_stacks
from llmbuild.compiler.kernels.cpu import packed
from llmbuild.compiler.kernels.cpu.instructions.avx2 import Avx2
from llmbuild.compiler.kernels.cpu.rounding import Rounding
from llmbuild.compiler.scripts import quick_scripts
from llmbuild.quantization.scheme import SCHEMES


def parts() -> Any:
    """A function with what expressions are made of: items, slices, calls with keywords, lists, macros within macros."""
    pair = (2, [3, 5])

    @T.macro
    def inner(buffer, at, value):
        buffer[at] = value + T.Cast("float32", len([*"ab"])) if pair[1][0] > 2 else value

    @T.macro
    def outer(buffer, at):
        inner(buffer, at, T.max(buffer[at], T.float32(1.0)))
        for step in T.serial(pair[0], annotations={"one": 1}):
            inner(buffer, at + step, buffer[T.min(at, step)])

    @T.prim_func(private=True, s_tir=True)
    def function(a: T.handle) -> None:
        n = T.int64()
        buffer = T.match_buffer(a, (n,), "float32", offset_factor=1)
        for i in T.parallel(n):
            with T.sblock("block"):
                v = T.axis.spatial(n, i)
                T.reads(buffer[v])
                T.writes(buffer[0:n])
                if v < n - 2 and v != 3:
                    outer(buffer, v)
                else:
                    buffer[v] = T.if_then_else(v > 1, T.float32(0), buffer[v])

    return function


def kernels() -> list[Any]:
    made = [parts()]
    for rounding in (None, Rounding(1, Avx2())):
        made.append(packed.matrix_kernel(rounding, SCHEMES["q4f16_1"], 128, 0, 0, "float16", "float16", "float16"))
    return made


def test_the_same_functions() -> None:
    with quick_stacks():
        slow = kernels()
    with quick_scripts():
        quick = kernels()
    for one, other in zip(slow, quick, strict=True):
        assert tvm_ffi.structural_equal(one, other)
        assert one.script() == other.script()
    text = tvm.ir.save_json(quick[0])
    assert "ir.Span" in tvm.ir.save_json(slow[0])
    assert "ir.Span" not in text


def test_an_error_names_its_line() -> None:
    def wrong() -> Any:
        @T.prim_func(private=True, s_tir=True)
        def function(a: T.handle) -> None:
            buffer = T.match_buffer(a, (4,), "float32")
            buffer[0] = undefined_name + 1  # noqa: F821

        return function

    found = []
    for context in (quick_stacks, quick_scripts):
        with context():
            try:
                wrong()
            except Exception as error:
                found.append((type(error), str(error)))
    assert len(found) == 2 and found[0] == found[1]
