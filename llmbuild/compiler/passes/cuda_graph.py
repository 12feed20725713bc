"""Record the kernels of a step as a CUDA graph, which the driver launches at once.

Before: calls of kernels, with planned memory.
After: the parts of each function that neither allocate nor depend on values of the host are functions of their own, which
the VM captures when it first runs them and replays afterwards; for functions whose sizes vary from step to step only by the
batch or the number of drafted tokens, once for each size (the attribute that `AnnotateForCudaGraph` sets).  Where memory
was moved into `cuda_graph_alloc`, the function `cuda_graph_alloc_init()` allocates it ahead of the first step.
"""

from __future__ import annotations

from typing import Any

import tvm
from tvm import relax

ATTRIBUTE = "relax.rewrite_cuda_graph.capture_symbolic_vars"
VARYING = {"batch_decode": ["batch_size"], "batch_verify": ["batch_size", "seq_len"]}
"""The sizes for each value of which a function is captured; the same applies to its form that ends at hidden states."""


@tvm.transform.module_pass(opt_level=0, name="AnnotateForCudaGraph")
class AnnotateForCudaGraph:
    """See the module's docstring.  Its place is before memory is planned."""

    def transform_module(self, module: Any, _: Any) -> Any:
        for name, function in module.functions_items():
            sizes = VARYING.get(name.name_hint.removesuffix("_to_last_hidden_states"))
            if isinstance(function, relax.Function) and sizes is not None:
                module[name] = function.with_attr(ATTRIBUTE, sizes)
        return module


@tvm.transform.module_pass(opt_level=0, name="RewriteForCudaGraph")
class RewriteForCudaGraph:
    """See the module's docstring.  It rewrites where the context's "relax.backend.use_cuda_graph" is set."""

    def transform_module(self, module: Any, _: Any) -> Any:
        module = relax.transform.RewriteCUDAGraph()(module)
        allocations = [name for name in module.get_global_vars() if name.name_hint.startswith("cuda_graph_alloc")]
        if not allocations:
            return module
        builder = relax.BlockBuilder(module)
        with builder.function("cuda_graph_alloc_init", []):
            builder.emit_func_output(
                relax.op.call_builtin_with_ctx(
                    "vm.builtin.cuda_graph.get_cached_alloc",
                    args=[allocations[0], relax.prim_value(0)],
                    ty_args=relax.AnyType(),
                )
            )
        return builder.finalize()
