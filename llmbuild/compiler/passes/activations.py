"""Compute activations of float16 in float32.

Before: `silu(x)` of float16, which TVM writes as x * sigmoid(x) in float16: the sigmoid of -12 is 0 there, since exp(12) is
infinite, and silu(-12) becomes 0 instead of -7.4e-05.
After: `astype(silu(astype(x, "float32")), "float16")`, which is fused into one function.  Devices with float16 of their own
evaluate exp with more bits, and stay as MLC has them.
"""

from __future__ import annotations

from typing import Any

import tvm
from tvm import relax

_OPERATORS = ("relax.nn.silu", "relax.nn.gelu", "relax.nn.gelu_tanh")


@tvm.transform.module_pass(opt_level=0, name="WidenActivations")
class WidenActivations:
    """See the module's docstring."""

    def transform_module(self, module: Any, _: Any) -> Any:
        rewriter = _Rewriter(module)
        for name, function in module.functions_items():
            if isinstance(function, relax.Function):
                rewriter.builder_.update_func(name, rewriter.visit_expr(function))
        return rewriter.builder_.finalize()


@relax.expr_functor.mutator
class _Rewriter(relax.PyExprMutator):  # type: ignore[misc]
    def visit_call_(self, call: Any) -> Any:
        call = super().visit_call_(call)
        if not isinstance(call.op, tvm.ir.Op) or call.op.name not in _OPERATORS:
            return call
        (value,) = call.args
        if value.ty.dtype != "float16":
            return call
        wide = self.builder_.emit(relax.op.astype(value, "float32"))
        result = self.builder_.emit(relax.Call(call.op, [wide], call.attrs))
        return relax.op.astype(result, "float16")
