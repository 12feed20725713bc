"""Products with packed weights in every layout and width: the scheduled OpenCL kernels on PoCL against NumPy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from llmbuild.quantization.scheme import SCHEMES, Scheme
from tests.helpers.awq import quantize as quantize_awq
from tests.helpers.opencl import DEVICE, HOST, compile_kernel, require
from tests.helpers.reference_quant import dequantize, quantize

N, K = 96, 240
"""K is a number of whole groups of 40, and of 7.5 groups of 32: the last one is padded."""

WIDE = {
    name: replace(SCHEMES[name], dtype="float32") for name in ("q4f16_0", "q3f16_0", "q3f16_1", "q4f16_1", "q8f16_1")
}
"""The schemes' layouts and widths with float32, the only width that PoCL computes in on every machine."""

AWQ = replace(SCHEMES["q4f16_awq"], dtype="float32", group_size=48)


def kernel(rows: int | None, scheme: Scheme | None, **device: Any) -> Callable[..., Any]:
    """The product of [1, rows, K] with a weight [N, K], scheduled as in the pipeline; None stands for any number of rows."""
    import tvm
    from tvm import te, tirx

    from llmbuild.compiler.devices import find_device
    from llmbuild.compiler.kernels.gpu.linear import packed_product, product
    from llmbuild.quantization.layers import packed_tensors

    count = tirx.Var("seq_len", "int64") if rows is None else rows
    x = te.placeholder((1, count, K), "float32", name="x")
    if scheme is None:
        weight = te.placeholder((N, K), "float32", name="weight")
        arguments = [x, weight, product(x, lambda i, j: weight[i, j], N, "float32")]
    else:
        tensors = packed_tensors(scheme, N, K)
        weights = [te.placeholder(shape, dtype, name=name) for name, (shape, dtype) in tensors.items()]
        arguments = [x, *weights, packed_product(x, weights, scheme, N, K, "float32")]
    module = tvm.IRModule({"matmul": te.create_prim_func(arguments, index_dtype_override="int64")})
    target = tvm.target.Target({**DEVICE, **device, "host": HOST})
    with target:
        module = tvm.transform.Sequential(find_device("opencl").schedules(target))(module)
    return compile_kernel(module["matmul"], **device)


@pytest.mark.parametrize("name", [*WIDE, "awq", "plain"])
def test_products(name: str) -> None:
    """One row, and 2, 7 and 37 rows, which have a schedule each."""
    require()
    scheme = AWQ if name == "awq" else WIDE.get(name)
    rng = np.random.default_rng(5)
    weight = rng.standard_normal((N, K)).astype(np.float32)
    stored = [weight]
    if name == "awq":
        packed, weight = quantize_awq(weight, AWQ.group_size)
        stored = [
            packed["qweight"].view(np.uint32),
            packed["qzeros"].view(np.uint32),
            packed["scales"].astype(np.float32),
        ]
    elif scheme is not None:
        words, scales = quantize(weight, scheme.bits, scheme.group_size, "float32")
        weight = dequantize(words, scales, scheme.bits, scheme.group_size, K)
        stored = [words, scales] if scheme.layout == "NK" else [np.ascontiguousarray(a.T) for a in (words, scales)]
    any_rows = kernel(None, scheme)
    for rows, run in ((1, kernel(1, scheme)), (1, any_rows), (2, any_rows), (7, any_rows), (37, any_rows)):
        x = rng.standard_normal((1, rows, K)).astype(np.float32)
        result = np.full((1, rows, N), np.nan, np.float32)
        launches = run(x, *stored, result)
        np.testing.assert_allclose(result[0], x[0] @ weight.T, rtol=1e-4, atol=1e-4, err_msg=f"{rows} rows")
        assert sum(launches.values()) == 1
