"""Turn activations into calls of functions of ours.

Before: operators of Relax, `silu(x)` for instance.
After: calls of functions that compute them as `kernels.cpu.activations` says, which are fused with what is around them.
"""

from __future__ import annotations

from typing import Any

import tvm
from tvm import relax

from llmbuild.compiler.calls import Calls
from llmbuild.compiler.kernels.cpu.activations import ACTIVATIONS, activation

_PREFIX = "relax.nn."


@tvm.transform.module_pass(opt_level=0, name="CallActivations")
class CallActivations:
    """See the module's docstring."""

    def transform_module(self, module: Any, _: Any) -> Any:
        rewriter = _Rewriter(module)
        for name, function in module.functions_items():
            if isinstance(function, relax.Function):
                rewriter.builder_.update_func(name, rewriter.visit_expr(function))
        return rewriter.builder_.finalize()


@relax.expr_functor.mutator
class _Rewriter(relax.PyExprMutator):  # type: ignore[misc]
    def __init__(self, module: Any) -> None:
        super().__init__(module)
        self.calls = Calls()

    def visit_call_(self, call: Any) -> Any:
        call = super().visit_call_(call)
        name = call.op.name.removeprefix(_PREFIX) if isinstance(call.op, tvm.ir.Op) else ""
        if name not in ACTIVATIONS:
            return call
        (value,) = call.args

        def made() -> Any:
            return self.builder_.call_te(lambda x: activation(name, x), value, primfunc_name_hint=name)

        return self.calls.call([name], [value], made)
