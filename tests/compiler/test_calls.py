"""Calls made once for each kind: the module is the one that TVM makes call by call, names included."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from llmbuild.quantization.scheme import SCHEMES


def copied(module: Any) -> Any:
    import tvm

    return tvm.ir.load_json(tvm.ir.save_json(module))


@contextmanager
def every_call_made(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """In this context nothing is remembered; the list gets an entry for each call."""
    from llmbuild.compiler.calls import Calls

    made: list[Any] = []

    def call(_: Calls, kind: Any, arguments: Any, make: Callable[[], Any]) -> Any:
        made.append((kind, arguments))
        return make()

    with monkeypatch.context() as patch:
        patch.setattr(Calls, "call", call)
        yield made


def exported(scheme: str) -> Any:
    """A model with every part of a decoder, whose products are those for GPUs."""
    from llmbuild.compiler.kernels.gpu.linear import GpuKernels
    from llmbuild.models.build import export_decoder
    from tests.helpers.parts import composed

    return export_decoder(composed(), SCHEMES[scheme], GpuKernels()).module


@pytest.mark.parametrize("scheme", ["q4f16_1", "q0f16"])
def test_operators_become_what_tvm_makes_of_them(scheme: str) -> None:
    from tvm import relax

    from llmbuild.compiler.passes.legalize import LegalizeOnce

    module = exported(scheme)
    wanted = relax.transform.LegalizeOps()(copied(module))
    assert LegalizeOnce()(module).script() == wanted.script()


def test_products_are_those_that_are_made_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    once = exported("q4f16_1")
    with every_call_made(monkeypatch) as made:
        assert once.script() == exported("q4f16_1").script()
    assert len(made) > 100


def test_a_rule_is_asked_once_for_equal_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    from tvm import relax

    from llmbuild.compiler.calls import Calls
    from llmbuild.compiler.passes.legalize import LegalizeOnce

    asked: list[Any] = []
    usual = Calls.call

    def call(self: Calls, kind: Any, arguments: Any, make: Callable[[], Any]) -> Any:
        return usual(self, kind, arguments, lambda: asked.append(kind) or make())

    layers = 6
    module = _chain(layers)
    monkeypatch.setattr(Calls, "call", call)
    legalized = LegalizeOnce()(module)
    # In each of the two functions: an addition, and a product of a value with itself, which no other call may stand for.
    assert len(asked) == 2 * (1 + layers)
    assert legalized.script() == relax.transform.LegalizeOps()(_chain(layers)).script()


def _chain(layers: int) -> Any:
    """Two functions of a symbolic size each, in which `layers` times y = (x + w) * (x + w)."""
    from tvm import relax, tirx

    builder = relax.BlockBuilder()
    for name in ("one", "two"):
        size = tirx.Var("n", "int64")
        x, w = (relax.Var(label, relax.TensorType([size, 4], "float32")) for label in ("x", "w"))
        with builder.function(name, [x, w]):
            with builder.dataflow():
                value = x
                for _ in range(layers):
                    total = builder.emit(relax.op.add(value, w))
                    value = builder.emit(relax.op.multiply(total, total))
                result = builder.emit_output(value)
            builder.emit_func_output(result)
    return builder.finalize()
