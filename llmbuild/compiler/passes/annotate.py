"""Annotate each Relax function with the bounds that the memory planner may assume.

Before: shapes with symbolic dimensions.
After: every Relax function records the upper bounds of its dimensions ("tir_var_upper_bound"), which dimensions are never
negative, and that its dynamically shaped outputs are planned too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tvm
from tvm import relax

from llmbuild.models.family import ModelConfig


def variable_bounds(config: ModelConfig) -> dict[str, int]:
    """The largest values of the symbolic dimensions, by name.  A sliding window bounds the cache instead of the context."""
    bounds = {"seq_len": config.prefill_chunk_size, "batch_size": config.max_batch_size}
    if config.sliding_window_size > 0:
        bounds["rolling_cache_len"] = config.sliding_window_size
        bounds["kv_seq_len"] = config.sliding_window_size + config.prefill_chunk_size
    else:
        bounds["total_seq_len"] = config.context_window_size
    return bounds


@tvm.transform.module_pass(opt_level=0, name="AnnotateForMemoryPlanning")
class AnnotateForMemoryPlanning:
    """See the module's docstring."""

    def __init__(self, bounds: Mapping[str, int]) -> None:
        self.bounds = dict(bounds)

    def transform_module(self, module: Any, _: Any) -> Any:
        for name, function in module.functions_items():
            if isinstance(function, relax.Function):
                module[name] = (
                    function.with_attr("tir_var_upper_bound", self.bounds)
                    .with_attr("tir_non_negative_var", ["vocab_size"])
                    .with_attr("relax.memory_plan_dynamic_func_output", True)
                )
        return module
