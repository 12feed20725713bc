"""Add the functions with which a runtime collects and spreads rows between batches.

Before: no such functions.
After: PrimFuncs `scatter_probs` and `gather_probs` on float32 [rows, n] with int32 row numbers, and Relax functions
`scatter_hidden_states` and `gather_hidden_states`, the same on hidden states in the compute dtype, which return the
destination that they wrote.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tvm
from tvm import relax, tirx

from llmbuild.compiler.kernels import RowMoves
from llmbuild.compiler.reuse import directly


@tvm.transform.module_pass(opt_level=0, name="AttachRowMoves")
class AttachRowMoves:
    """See the module's docstring."""

    def __init__(self, kernels: RowMoves, dtype: str, one: Callable[..., Any] = directly) -> None:
        """`one` gives the kernel that a function makes of arguments."""
        self.kernels = kernels
        self.dtype = dtype
        self.one = one

    def transform_module(self, module: Any, _: Any) -> Any:
        builder = relax.BlockBuilder(module)
        for name, make in (("scatter", self.kernels.scatter_kernel), ("gather", self.kernels.gather_kernel)):
            builder.add_func(self.one(make, "float32").with_attr("global_symbol", f"{name}_probs"), f"{name}_probs")
            self._hidden_states(builder, name, self.one(make, self.dtype))
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
