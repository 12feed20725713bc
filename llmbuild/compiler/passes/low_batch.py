"""Give products over few rows a schedule of their own (GPU).

Before: a function multiplies any number of rows with a weight (the batch of a decode step, the length of a prompt), and
would get the schedule for matrix products, which computes tiles of many rows even where one or two are needed.
After: such a function chooses by the number of rows, on the host: up to 2 rows and up to 8 rows have kernels that read
the weight once and keep partial sums of a few rows; more rows have the matrix product.
"""

from __future__ import annotations

from typing import Any

import tvm
from tvm import s_tir, tirx
from tvm.s_tir import dlight

BUCKETS = ((2, 2), (8, 4))
"""(largest number of rows, rows that one kernel computes together)."""


@tvm.transform.module_pass(opt_level=0, name="SpecializeLowBatch")
class SpecializeLowBatch:
    """See the module's docstring.  Functions whose name is not that of a matrix product are left alone."""

    def __init__(self, target: Any, matmul: Any) -> None:
        self.target = target
        self.matmul = matmul

    def transform_module(self, module: Any, _: Any) -> Any:
        for name, function in module.functions_items():
            if isinstance(function, tirx.PrimFunc) and "matmul" in name.name_hint:
                chosen = self.specialize(function)
                if chosen is not None:
                    module[name] = chosen
        return module

    def specialize(self, function: Any) -> Any:
        """The function with a choice between schedules, or None where it has no variable number of rows."""
        rows = variable_size(function)
        if rows is None or "tirx.is_scheduled" in function.attrs:
            return None
        body = self._scheduled(self.matmul, function)
        low = [(most, self._scheduled(dlight.gpu.LowBatchGEMV(together), function)) for most, together in BUCKETS]
        if body is None or any(kernel is None for _, kernel in low):
            return None
        for most, kernel in reversed(low):
            body = tirx.IfThenElse(tirx.op.tvm_thread_invariant(rows <= most), kernel, body)
        root = s_tir.SBlockRealize([], True, s_tir.SBlock([], [], [], "root", body))
        return function.with_body(root).with_attrs({"tirx.is_scheduled": True, "tirx.HoistIfThenElseExprWithBlock": 1})

    def _scheduled(self, rule: Any, function: Any) -> Any:
        schedule = rule.apply(function, self.target, False)
        return None if schedule is None else schedule.mod["main"].body


def variable_size(function: Any) -> Any:
    """The one symbolic dimension of the function's buffers, or None where there are none or several."""
    found: list[Any] = []
    for parameter in function.params:
        for size in parameter.shape if tirx.is_buffer_var(parameter) else ():
            if isinstance(size, tirx.Var) and not any(size.same_as(other) for other in found):
                found.append(size)
    return found[0] if len(found) == 1 else None
