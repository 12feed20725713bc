"""Schedules for the functions that have none of their own, per device kind: the one place where they are chosen.

On GPUs the rules of TVM's dlight serve: matrix products in tiles (with tensor cores on CUDA and simdgroup matrices on
Metal, both for float16), products with one row or a few by reductions over a block's threads, and the rest by row.

On CPU the linear layers and attention arrive scheduled.  What is left are elementwise functions, which run in parallel
and vectorized where they are large, and small reductions (norms), which TVM's default loops serve well: its own
reduction rule makes a norm quadratic in the hidden size.
"""

from __future__ import annotations

from typing import Any

import tvm
from tvm import s_tir, tirx
from tvm.s_tir import dlight

from llmbuild.compiler.frames import quick_stacks
from llmbuild.compiler.passes.lift_buffers import LiftGlobalBuffers
from llmbuild.compiler.passes.low_batch import SpecializeLowBatch

LANES = 8
PARALLEL_FROM = 1 << 15
"""Elements from which a parallel loop pays for waking the other threads (about 5 us)."""


def schedule_passes(device: str, target: Any, *, stock: bool = False) -> list[Any]:
    """The passes that schedule every PrimFunc that is not scheduled yet and bring indices to their final width.

    `stock` takes the only rule of TVM for matrix products on CPU.  Indices are 32 bits wide on all devices but CUDA.
    """
    narrow = tvm.tirx.transform.ForceNarrowIndexToInt32()
    if device == "cpu":
        return [dlight.ApplyDefaultSchedule(dlight.cpu.GEMV() if stock else Elementwise()), narrow]
    if device in ("cuda", "metal"):
        with quick_stacks():
            # The rules for matrix units import it when they first apply.
            from tvm.s_tir import tensor_intrin  # noqa: F401
    matmul = dlight.gpu.Matmul()
    scheduled = [
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
    if device == "cuda":
        return scheduled
    # Metal's rule for matrix products brings views of 32-bit extents into functions of 64-bit ones, which narrowing does
    # not reconcile afterwards.  So these functions are narrow before: then the views fit.
    return [*([narrow] if device == "metal" else []), *scheduled, narrow]


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
