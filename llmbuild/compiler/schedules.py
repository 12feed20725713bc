"""Schedules for the functions that have none of their own, per device kind: the one place where they are chosen.

On CPU the linear layers and attention arrive scheduled.  What is left are elementwise functions, which run in parallel
and vectorized where they are large, and small reductions (norms), which TVM's default loops serve well: its own
reduction rule makes a norm quadratic in the hidden size.
"""

from __future__ import annotations

from typing import Any

import tvm
from tvm import s_tir, tirx
from tvm.s_tir import dlight

LANES = 8
PARALLEL_FROM = 1 << 15
"""Elements from which a parallel loop pays for waking the other threads (about 5 us)."""


def schedule_pass(device: str, *, stock: bool = False) -> Any:
    """The pass that schedules every PrimFunc that is not scheduled yet; `stock` takes the only rule of TVM for matrix
    products on CPU."""
    if device == "cpu" and stock:
        return dlight.ApplyDefaultSchedule(dlight.cpu.GEMV())
    if device == "cpu":
        return dlight.ApplyDefaultSchedule(Elementwise())
    return dlight.ApplyDefaultSchedule(
        dlight.gpu.Matmul(),
        dlight.gpu.GEMV(),
        dlight.gpu.Reduction(),
        dlight.gpu.GeneralReduction(),
        dlight.gpu.Fallback(),
    )


class Elementwise(dlight.base.ScheduleRule):  # type: ignore[misc]
    """CPU: one elementwise block after inlining becomes a loop over rows (parallel where large) around whole vectors."""

    def apply(self, func: Any, target: Any, tunable: bool) -> Any:  # noqa: ARG002
        """A schedule, or None to leave the function as it is."""
        if not isinstance(func, tirx.PrimFunc):
            return None
        schedule = s_tir.Schedule(func)
        blocks = dlight.analysis.normalize_prim_func(schedule)
        if blocks is None:
            return None
        blocks = dlight.base.try_inline(schedule, blocks)
        if len(blocks) != 1 or not blocks[0].is_injective():
            return None
        loops = schedule.get_loops(blocks[0].block_rv)
        extents = [schedule.get(loop).extent for loop in loops]
        if not extents:
            return None
        static = all(isinstance(extent, tirx.IntImm) for extent in extents)
        size = 1
        for extent in extents:
            size *= int(extent) if isinstance(extent, tirx.IntImm) else PARALLEL_FROM
        fused = schedule.fuse(*loops) if len(loops) > 1 else loops[0]
        last = extents[-1]
        if isinstance(last, tirx.IntImm) and int(last) % LANES == 0:
            fused, lanes = schedule.split(fused, [None, LANES])
            schedule.vectorize(lanes)
        if not static or size >= PARALLEL_FROM:
            schedule.parallel(fused)
        return schedule


def drop_pattern_attributes() -> Any:
    """A pass that removes "op_pattern", which fusion needed and code generation would carry along."""

    @tvm.transform.module_pass(opt_level=0, name="DropPatternAttributes")
    def drop(module: Any, _: Any) -> Any:
        for name, function in module.functions_items():
            if isinstance(function, tirx.PrimFunc) and "op_pattern" in (function.attrs or {}):
                module[name] = function.without_attr("op_pattern")
        return module

    return drop
