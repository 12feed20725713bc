"""Add the functions with which a runtime collects and spreads rows between batches.

Before: no such functions.
After: PrimFuncs `scatter_probs` and `gather_probs` on float32 [rows, n] with int32 row numbers, and Relax functions
`scatter_hidden_states` and `gather_hidden_states`, the same on hidden states in the compute dtype, which return the
destination that they wrote.
"""

from __future__ import annotations

from typing import Any

import tvm
from tvm import relax, tirx
from tvm.script import tirx as T

from llmbuild.compiler.kernels.gpu import row_moves as gpu


def _scatter(dtype: str) -> Any:
    @T.prim_func(s_tir=True)
    def scatter(source_handle: T.handle, rows_handle: T.handle, target_handle: T.handle) -> None:
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
        count = T.int32()
        total = T.int32()
        width = T.int32()
        source = T.match_buffer(source_handle, (count, width), dtype)
        rows = T.match_buffer(rows_handle, (count,), "int32")
        target = T.match_buffer(target_handle, (total, width), dtype)
        for i in T.serial(count):
            for j in T.serial(width):
                target[rows[i], j] = source[i, j]

    return scatter


def _gather(dtype: str) -> Any:
    @T.prim_func(s_tir=True)
    def gather(source_handle: T.handle, rows_handle: T.handle, target_handle: T.handle) -> None:
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
        count = T.int32()
        total = T.int32()
        width = T.int32()
        source = T.match_buffer(source_handle, (total, width), dtype)
        rows = T.match_buffer(rows_handle, (count,), "int32")
        target = T.match_buffer(target_handle, (count, width), dtype)
        for i in T.serial(count):
            for j in T.serial(width):
                target[i, j] = source[rows[i], j]

    return gather


@tvm.transform.module_pass(opt_level=0, name="AttachRowMoves")
class AttachRowMoves:
    """See the module's docstring."""

    def __init__(self, device: str, dtype: str) -> None:
        self.device = device
        self.dtype = dtype

    def transform_module(self, module: Any, _: Any) -> Any:
        builder = relax.BlockBuilder(module)
        cpu = self.device == "cpu"
        forms = (_scatter, _gather) if cpu else (gpu.scatter_kernel, gpu.gather_kernel)
        for name, make in zip(("scatter", "gather"), forms, strict=True):
            builder.add_func(make("float32").with_attr("global_symbol", f"{name}_probs"), f"{name}_probs")
            self._hidden_states(builder, name, make(self.dtype))
        return builder.finalize()

    def _hidden_states(self, builder: Any, name: str, function: Any) -> None:
        count, total, width = (tirx.Var(size, "int64") for size in ("batch_size", "m", "n"))
        listed, whole = ([count, width], self.dtype), ([total, width], self.dtype)
        source, target = (listed, whole) if name == "scatter" else (whole, listed)
        params = [
            relax.Var("source", relax.TensorType(*source)),
            relax.Var("rows", relax.TensorType([count], "int32")),
            relax.Var("target", relax.TensorType(*target)),
        ]
        inner = f"_{name}_hidden_states"
        with builder.function(f"{name}_hidden_states", params):
            with builder.dataflow():
                callee = builder.add_func(function.with_attr("global_symbol", inner), inner)
                written = builder.emit_output(relax.op.call_tir_inplace(callee, params, 2, params[2].ty))
            builder.emit_func_output(written)
