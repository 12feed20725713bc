"""Let Relax allocate the buffers that a scheduled function uses in the device's memory between its kernels (GPU).

Before: a PrimFunc allocates a buffer of global scope itself (such as a rearranged copy of a matrix).
After: the buffer is one more output of the function, so that the memory planner sees it, shares its memory with others
and counts it.  Only functions that Relax calls are changed: those that the KV cache calls have fixed signatures.
"""

from __future__ import annotations

from typing import Any

import tvm
import tvm_ffi
from tvm import relax, s_tir, tirx
from tvm.relax.expr_functor import PyExprMutator, mutator


@tvm.transform.module_pass(opt_level=0, name="LiftGlobalBuffers")
class LiftGlobalBuffers:
    """See the module's docstring."""

    def transform_module(self, module: Any, _: Any) -> Any:
        lifted = {}
        for name, function in module.functions_items():
            if isinstance(function, tirx.PrimFunc):
                without, buffers = take_buffers(function)
                if buffers:
                    lifted[name] = (without, buffers)
        if not lifted:
            return module
        return _Callers(module, lifted).transform()


def take_buffers(function: Any) -> tuple[Any, list[Any]]:
    """The function with its global buffers as outputs after the others, and those buffers."""
    root = function.body
    if not isinstance(root, s_tir.SBlockRealize):
        return function, []
    block = root.block
    buffers = [buffer for buffer in block.alloc_buffers if buffer.scope() == "global"]
    if not buffers:
        return function, []
    kept = [buffer for buffer in block.alloc_buffers if buffer.scope() != "global"]
    params = list(function.params)
    end = len(params)
    while not tirx.is_buffer_var(params[end - 1]):  # Sizes that no shape gives come after the outputs.
        end -= 1
    inner = s_tir.SBlock([], [], [], block.name_hint, block.body, None, kept, [], block.annotations)
    realize = s_tir.SBlockRealize([], True, inner)
    return tirx.PrimFunc([*params[:end], *buffers, *params[end:]], realize, function.ret_type, function.attrs), buffers


@mutator
class _Callers(PyExprMutator):  # type: ignore[misc]
    """Adds the new outputs to every call of a lifted function."""

    def __init__(self, module: Any, lifted: dict[Any, tuple[Any, list[Any]]]) -> None:
        super().__init__(module)
        self.module = module
        self.lifted = lifted
        self.call_tir = tvm.ir.Op.get("relax.call_tir")

    def transform(self) -> Any:
        for name, function in self.module.functions_items():
            if isinstance(function, relax.Function):
                self.builder_.update_func(name, self.visit_expr(function))
        for name, (function, _) in self.lifted.items():
            self.builder_.update_func(name, function)
        return self.builder_.get()

    def visit_call_(self, call: Any) -> Any:
        call = self.visit_expr_post_order(call)
        if call.op != self.call_tir or call.args[0] not in self.lifted:
            return call
        function, buffers = self.lifted[call.args[0]]
        result = call.ty_args[0]
        outputs = list(result.fields) if isinstance(result, relax.TupleType) else [result]
        sizes = self._sizes(function, call, outputs)
        more = [
            relax.TensorType([_substitute(size, sizes) for size in buffer.shape], str(buffer.dtype))
            for buffer in buffers
        ]
        every = relax.Call(call.op, call.args, call.attrs, [relax.TupleType([*outputs, *more])])
        if isinstance(result, relax.TupleType):
            # Callers read the items that they had before; those after them are not read.
            return every
        return relax.TupleGetItem(self.builder_.emit(every), 0)

    def _sizes(self, function: Any, call: Any, outputs: list[Any]) -> list[tuple[Any, Any]]:
        """The caller's values of the function's symbolic dimensions."""
        sizes = []
        known = [argument.ty for argument in call.args[1].fields] + outputs
        for parameter, given in zip(function.params, known, strict=False):
            for size, value in zip(parameter.shape, given.shape.values, strict=True):
                if isinstance(size, tirx.Var):
                    sizes.append((size, value))
        return sizes


def _substitute(expression: Any, sizes: list[tuple[Any, Any]]) -> Any:
    def replace(variable: Any) -> Any:
        return next((value for size, value in sizes if size.same_as(variable)), variable)

    return tvm_ffi.structural_map(expression, (tirx.Var, replace))
