"""Activations of float16 on a CPU, for every finite value of float16 and for extremes of float32."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

VALUES = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
VALUES = np.sort(VALUES[np.isfinite(VALUES)])


def evaluate(name: str, device: Any, dtype: str = "float16", values: np.ndarray = VALUES) -> np.ndarray:
    import tvm
    from tvm import relax

    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType([len(values)], dtype))
    with builder.function("main", [x]):
        with builder.dataflow():
            result = builder.emit_output(getattr(relax.op.nn, name)(x))
        builder.emit_func_output(result)
    transform = relax.transform
    steps = [transform.LegalizeOps(), transform.AnnotateTIROpPattern(), transform.FuseOps(), transform.FuseTIR()]
    module = tvm.transform.Sequential([*device.operators(), *steps])(builder.finalize())
    # The casts are part of the function that computes.
    assert len([one for _, one in module.functions_items() if isinstance(one, tvm.tirx.PrimFunc)]) == 1
    machine = relax.VirtualMachine(relax.build(module, "llvm"), tvm.cpu())
    return np.asarray(machine["main"](tvm.runtime.tensor(values.astype(dtype))).numpy())


@pytest.mark.parametrize("name", ["silu", "gelu", "gelu_tanh"])
def test_activations_are_those_of_float32(name: str) -> None:
    from llmbuild.compiler.devices.llvm import DEVICE

    assert np.array_equal(evaluate(name, DEVICE), evaluate(name, DEVICE, "float32").astype(np.float16))


def test_silu_is_right_where_the_sigmoid_is_no_float16() -> None:
    from llmbuild.compiler.devices.llvm import DEVICE

    exact = VALUES.astype(np.float64) / (1 + np.exp(-np.maximum(VALUES.astype(np.float64), -700)))
    assert np.abs(evaluate("silu", DEVICE).astype(np.float64) - exact).max() <= 2**-11 * np.abs(VALUES).max()
    found = evaluate("silu", DEVICE)[np.searchsorted(VALUES, [-12, -14])]
    assert np.allclose(found, [-12 / (1 + np.exp(12)), -14 / (1 + np.exp(14))], rtol=1e-2)


EXACT = {
    "silu": lambda x: x / (1 + np.exp(-x)),
    "gelu": lambda x: x * (1 + np.vectorize(math.erf)(x * math.sqrt(0.5))) / 2,
    "gelu_tanh": lambda x: x / (1 + np.exp(-2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
}


@pytest.mark.parametrize("name", sorted(EXACT))
def test_activations_of_float32_are_as_exact_as_float32(name: str) -> None:
    from llmbuild.compiler.devices.llvm import DEVICE

    wide = VALUES.astype(np.float64)
    some = np.abs(wide) < 9
    with np.errstate(over="ignore"):
        exact = EXACT[name](wide)
    found = evaluate(name, DEVICE, "float32").astype(np.float64)
    assert np.isfinite(found).all()
    # TVM's erf is an approximation of its own; the exponent of gelu_tanh is up to 66 here, with a relative error of 2^-24.
    factor = np.abs(exact / np.where(wide == 0, 1, wide))
    bound = {"silu": 1e-6 * factor, "gelu": 3e-7, "gelu_tanh": 1e-5 * factor}[name]
    assert (np.abs(found - exact) <= bound * np.abs(wide) + 1e-30)[some].all()
    assert np.allclose(found, exact, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", sorted(EXACT))
def test_extremes_of_float32(name: str) -> None:
    from llmbuild.compiler.devices.llvm import DEVICE

    largest = np.finfo(np.float32).max
    values = np.array([-largest, -1e30, -1e10, -200, -88, 0, 200, 1e10, 1e30, largest, np.inf, np.nan], np.float32)
    with np.errstate(over="ignore"):
        exact = EXACT[name](values.astype(np.float64))
    found = evaluate(name, DEVICE, "float32", values)
    assert np.allclose(found, exact, rtol=1e-6, atol=1e-30, equal_nan=True)
