"""Add the library's record of itself.

Before: planned memory, as `alloc_storage` and `alloc_tensor` calls.
After: `_metadata() -> str`, the record as JSON, completed with "memory_usage": the bytes that each Relax function
allocates at its largest dimensions, parameters and KV cache not counted.
"""

from __future__ import annotations

import json
import math
from typing import Any

import tvm
from tvm import relax, tirx
from tvm.relax.expr_functor import PyExprVisitor, visitor


@tvm.transform.module_pass(opt_level=0, name="AttachMetadata")
class AttachMetadata:
    """See the module's docstring.  `record` is completed in place, for a copy beside the library."""

    def __init__(self, record: dict[str, Any]) -> None:
        self.record = record

    def transform_module(self, module: Any, _: Any) -> Any:
        usage = {
            name.name_hint: planned_bytes(function)
            for name, function in module.functions_items()
            if isinstance(function, relax.Function)
        }
        self.record["memory_usage"] = dict(sorted(usage.items()))
        builder = relax.BlockBuilder()
        with builder.function("_metadata", []):
            builder.emit_func_output(tvm.ir.StringImm(json.dumps(self.record)))
        module["_metadata"] = builder.finalize()["_metadata"]
        return module


def planned_bytes(function: Any) -> int:
    """The bytes of a function's allocations whose size is known."""
    counter = _Allocations()
    counter.visit_expr(function)
    return counter.total


@visitor
class _Allocations(PyExprVisitor):  # type: ignore[misc]
    """Sums the static allocations of one function."""

    def __init__(self) -> None:
        self.total = 0
        self.storage = tvm.ir.Op.get("relax.memory.alloc_storage")
        self.tensor = tvm.ir.Op.get("relax.builtin.alloc_tensor")

    def visit_call_(self, call: Any) -> None:
        if call.op in (self.storage, self.tensor):
            sizes = list(call.args[0].values)
            if all(isinstance(size, tirx.IntImm) for size in sizes):
                # A storage counts bytes; a tensor counts elements of the dtype that is its second argument.
                width = 1 if call.op == self.storage else tvm.DataType(str(call.args[1].value)).bits // 8
                self.total += math.prod(int(size) for size in sizes) * width
        super().visit_call_(call)
