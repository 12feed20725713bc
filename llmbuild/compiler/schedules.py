"""Schedules for the functions that have none of their own; the hook `schedules` of a device kind chooses among them.

On GPUs the rules of TVM's dlight serve: matrix products in tiles (with tensor cores on CUDA and simdgroup matrices on
Metal, both for float16), products with one row or a few by reductions over a block's threads, and the rest by row.

On CPU the linear layers and attention arrive scheduled.  The rest are elementwise functions, which run in parallel
and vectorized where they are large, and small reductions (norms), which TVM's default loops serve well: its own
reduction rule makes a norm quadratic in the hidden size.
"""

from __future__ import annotations

from typing import Any

import tvm
from tvm import s_tir, tirx
from tvm.s_tir import dlight

from llmbuild.compiler.passes.lift_buffers import LiftGlobalBuffers
from llmbuild.compiler.passes.low_batch import SpecializeLowBatch

LANES = 8
PARALLEL_FROM = 1 << 15
"""Elements from which a parallel loop pays for waking the other threads (about 5 us)."""


def narrow() -> Any:
    """The pass that makes indices 32 bits wide."""
    return tvm.tirx.transform.ForceNarrowIndexToInt32()


def for_cpu(*, stock: bool) -> Any:
    """The pass for CPUs; `stock` selects TVM's only rule for matrix products there."""
    return dlight.ApplyDefaultSchedule(dlight.cpu.GEMV() if stock else Elementwise())


def for_gpu(target: Any) -> list[Any]:
    """The passes for GPUs."""
    matmul = dlight.gpu.Matmul()
    return [
        SpecializeLowBatch(target, matmul),
        dlight.ApplyDefaultSchedule(
            matmul,
            dlight.gpu.GEMV(),
            dlight.gpu.Reduction(),
            dlight.gpu.GeneralReduction(),
            dlight.gpu.Fallback(),
        ),
        LiftGlobalBuffers(),
    ]


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
