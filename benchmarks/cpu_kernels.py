"""Linear layers on CPU: our kernels beside TVM's own schedules, in GB/s of weight bytes and GFLOP/s.

    python benchmarks/cpu_kernels.py [--schemes q4f32_1 q0f32] [--shapes 4096x4096] [--threads 2] [--rows 1 64]
        [--cpu x86-64-v3] [--activations int8x2] [--skip-stock]

Decode (one row) is bound by reading weights: 64 MB of them are cycled through, so that they come from memory.  Kernels are
those that a library calls on this CPU, which may have more than `--cpu`.  The stock columns are the generic kernels with TVM's
`dlight.cpu.GEMV` schedule, and with no schedule where it does not match.
"""

from __future__ import annotations

import argparse
import os
import time
from typing import Any

SHAPES = ((960, 576), (576, 576), (3072, 576), (576, 1536), (4096, 4096))


def measure(call: Any, weights: list[Any], x: Any, y: Any) -> float:
    """The best mean time in seconds of one call over all weights."""
    best = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        for weight in weights:
            call(x, *weight, y)
        best = min(best, (time.perf_counter() - start) / len(weights))
    return best


def compiled(kernels: Any, scheme: Any, n: int, k: int, rows: int, target: Any, stock: bool) -> Any:
    """A callable (x, *weights, y) for one layer."""
    import tvm
    from tvm import relax
    from tvm.relax.frontend import nn
    from tvm.s_tir import dlight

    from llmbuild.quantization.layers import Linear

    class Layer(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.layer = Linear(k, n, scheme, kernels)

        def forward(self, x: nn.Tensor) -> nn.Tensor:
            return self.layer(x)

    shape = nn.spec.Tensor([1, 1 if rows == 1 else "rows", k], scheme.dtype)
    module, _ = Layer().export_tvm({"forward": {"x": shape, "$": {"param_mode": "plain", "effect_mode": "none"}}})
    steps = [
        tvm.tirx.transform.BindTarget(target),
        relax.transform.LegalizeOps(),
        relax.transform.AnnotateTIROpPattern(),
        relax.transform.FuseOps(),
        relax.transform.FuseTIR(),
    ]
    if stock:
        steps.append(dlight.ApplyDefaultSchedule(dlight.cpu.GEMV()))
    with target, tvm.transform.PassContext(config={"tirx.disable_cse_tir": True}):
        module = tvm.transform.Sequential(steps)(module)
        machine = relax.VirtualMachine(relax.build(module, target=target, relax_pipeline="default_build"), tvm.cpu())
    forward = machine["forward"]
    return lambda x, *rest: forward(x, *rest[:-1])


def weights(rng: Any, scheme: Any, n: int, k: int) -> tuple[Any, ...]:
    """Random stored weights of one layer, as it declares them."""
    import ml_dtypes
    import numpy as np

    from llmbuild.quantization.layers import packed_tensors

    stored = packed_tensors(scheme, n, k) if scheme.quantized else {"weight": ((n, k), scheme.dtype)}
    return tuple(
        rng.integers(0, 2**32, shape, dtype=np.uint32)
        if dtype == "uint32"
        else rng.random(shape, dtype=np.float32).astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
        for shape, dtype in stored.values()
    )


def shape_of(text: str) -> tuple[int, int]:
    n, _, k = text.partition("x")
    return int(n), int(k)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--schemes", nargs="+", default=["q4f32_1", "q0f32"])
    parser.add_argument("--shapes", type=shape_of, nargs="+", default=SHAPES, help="outputs x inputs")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 64])
    parser.add_argument("--cpu", default="x86-64-v3")
    parser.add_argument("--activations", choices=["int8x2", "int8", "float"], default="int8x2")
    parser.add_argument("--skip-stock", action="store_true")
    arguments = parser.parse_args()
    os.environ["TVM_NUM_THREADS"] = str(arguments.threads)
    os.environ.setdefault("TVM_BIND_THREADS", "0")

    import ml_dtypes
    import numpy as np
    import tvm

    from llmbuild.compiler.kernels.cpu.instructions import of_levels
    from llmbuild.compiler.kernels.cpu.linear import for_target
    from llmbuild.quantization.layers import GenericKernels
    from llmbuild.quantization.scheme import SCHEMES
    from llmbuild.targets.cpu import native_cpu

    triple = "x86_64-unknown-linux-gnu"
    target = tvm.target.Target({"kind": "llvm", "mtriple": triple, "mcpu": arguments.cpu})
    features = native_cpu(triple)[1]
    level = next((level for level in of_levels(target) if f"+{level.name}" in features), None)
    if level is not None:
        target = level.target(target)
    rng = np.random.default_rng(0)
    print(f"{arguments.threads} threads, {arguments.cpu}{f', {level.name}' if level else ''}")
    print(
        f"{'scheme':9} {'N':>5} {'K':>5} {'rows':>5} {'ours us':>9} {'GB/s':>6} {'GFLOP/s':>8} {'stock us':>9} {'times':>6}"
    )
    for name in arguments.schemes:
        scheme = SCHEMES[name]
        for n, k in arguments.shapes:
            for rows in arguments.rows:
                one = weights(rng, scheme, n, k)
                size = sum(array.nbytes for array in one)
                copies = max(1, min(400, 64_000_000 // size)) if rows == 1 else 1
                many = [tuple(map(tvm.runtime.tensor, one)) for _ in range(copies)]
                dtype = ml_dtypes.bfloat16 if scheme.dtype == "bfloat16" else scheme.dtype
                x = tvm.runtime.tensor(rng.random((1, rows, k), dtype=np.float32).astype(dtype))
                took = []
                for kernels, stock in (
                    (for_target(target, GenericKernels(), arguments.activations), False),
                    (GenericKernels(), True),
                ):
                    if stock and arguments.skip_stock:
                        continue
                    call = compiled(kernels, scheme, n, k, rows, target, stock)
                    call(x, *many[0], None)
                    took.append(measure(call, many, x, None))
                ours = took[0]
                beside = f"{took[1] * 1e6:9.0f} {took[1] / ours:6.1f}" if len(took) > 1 else ""
                flops = 2 * n * k * rows / ours / 1e9
                print(
                    f"{name:9} {n:5} {k:5} {rows:5} {ours * 1e6:9.1f} {size / ours / 1e9:6.1f} {flops:8.1f} {beside}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
