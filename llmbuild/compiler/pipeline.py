"""The compilation pipeline: one list of passes, from the exported module to VM code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tvm
from tvm import relax, tirx

from llmbuild.canonical import Json
from llmbuild.compiler.devices.device import Device
from llmbuild.compiler.passes.annotate import AnnotateForMemoryPlanning
from llmbuild.compiler.passes.copies import CopyFunctions
from llmbuild.compiler.passes.cuda_graph import AnnotateForCudaGraph, RewriteForCudaGraph
from llmbuild.compiler.passes.dump import Dump
from llmbuild.compiler.passes.embedding_allocator import AttachEmbeddingAllocator
from llmbuild.compiler.passes.kv_cache import AttachKVCache
from llmbuild.compiler.passes.legalize import LegalizeOnce
from llmbuild.compiler.passes.levels import AttachLevels, DispatchLevels
from llmbuild.compiler.passes.logits import AttachLogitProcessors
from llmbuild.compiler.passes.metadata import AttachMetadata
from llmbuild.compiler.passes.row_moves import AttachRowMoves
from llmbuild.compiler.passes.sampling import AttachSampling
from llmbuild.compiler.passes.shape_functions import OrderShapeFunctions
from llmbuild.compiler.passes.softmax import AttachSoftmaxWithTemperature
from llmbuild.compiler.passes.symbols import AttachSymbols
from llmbuild.compiler.reuse import Reuse, directly
from llmbuild.compiler.schedules import drop_pattern_attributes
from llmbuild.models.decoder import COPIES
from llmbuild.models.kv_cache import KVCacheLayout

PREFIX = "system_lib_prefix"
"""The attribute of a module that makes a system library of it, whose symbols begin with its value."""

FOR_RUNTIMES = "llmbuild.for_runtimes"
"""The attribute of a kernel that is none of the model's."""


@dataclass(frozen=True, slots=True)
class PassInputs:
    """The input of the passes.  The pipeline completes `metadata` (memory usage)."""

    device: Device
    target: Any
    kv_cache: KVCacheLayout
    bounds: Mapping[str, int]
    metadata: dict[str, Any]
    stock: frozenset[str] = frozenset()
    """Parts of a CPU library left to TVM, for comparison: "linears", "attention"."""
    cuda_graph: bool = False
    """Whether steps are recorded as CUDA graphs (where the device records them)."""
    dump: Path | None = None
    """A directory for the module as it is after each part of the pipeline."""


def passes(plan: PassInputs) -> list[Any]:
    """All passes in their order."""
    return [*attachments(plan), *operators(plan), *virtual_machine(plan)]


def attachments(plan: PassInputs, reuse: Reuse | None = None) -> list[Any]:
    """The passes that add functions of the library besides the model's own; with stand-ins for their kernels where `reuse` is
    given."""
    kernels = plan.device.kernels()
    one, together = (directly, directly) if reuse is None else (reuse.kernel, reuse.kernels)
    return [
        AttachKVCache(plan.kv_cache, plan.target, None if "attention" in plan.stock else kernels.attention, together),
        AttachSoftmaxWithTemperature(kernels.softmax, plan.metadata["active_vocab_size"], one),
        AttachLogitProcessors(kernels.logits, one),
        AttachRowMoves(kernels.row_moves, plan.kv_cache.dtype, one),
        AttachSampling(plan.device.sampling, one),
    ]


def operators(plan: PassInputs) -> list[Any]:
    """The passes from operators to calls of scheduled loops.  They depend on the device, the target and `stock` alone."""
    transform = relax.transform
    return [
        tvm.tirx.transform.BindTarget(plan.target),
        *_dump(plan, 0),
        # From operators to TIR functions.
        *plan.device.operators(),
        LegalizeOnce(),
        transform.AnnotateTIROpPattern(),
        transform.FoldConstant(),
        transform.FuseOps(),
        # It leaves no function that nothing calls.
        transform.FuseTIR(),
        *_dump(plan, 2),
        drop_pattern_attributes(),
        *_dump(plan, 3),
        # From TIR functions to loops for the device.
        *plan.device.schedules(plan.target, stock="linears" in plan.stock),
        *_dump(plan, 4),
        # From Relax to calls of the VM.
        transform.RewriteDataflowReshape(),
        transform.DeadCodeElimination(),
        transform.ToNonDataflow(),
        transform.RemovePurityChecking(),
        transform.CallTIRRewrite(),
    ]


def virtual_machine(plan: PassInputs) -> list[Any]:
    """The passes that plan memory and end at what the VM calls.  No PrimFunc's body is looked at."""
    transform = relax.transform
    return [
        CopyFunctions(COPIES),
        AttachEmbeddingAllocator(plan.metadata["prefill_chunk_size"]),
        AnnotateForMemoryPlanning(plan.bounds),
        *([AnnotateForCudaGraph()] if plan.cuda_graph else []),
        transform.StaticPlanBlockMemory(),
        AttachMetadata(plan.metadata),
        *_dump(plan, 5),
        *([RewriteForCudaGraph()] if plan.cuda_graph else []),
        transform.LowerAllocTensor(),
        transform.KillAfterLastUse(),
        transform.LowerRuntimeBuiltin(),
        transform.VMShapeLower(),
        AttachSymbols(),
        OrderShapeFunctions(),
        DispatchLevels(),
    ]


def run(plan: PassInputs, module: Any, origin: Json, reuse: Reuse) -> Any:
    """The module after all passes, with stand-ins in place of its kernels.  A module at the second part of the passes that an
    earlier one had is what it became there.

    `origin` is all that the module's own Relax functions depend on besides the platform: it names them, for their text is long.
    """

    def lowered(module: Any) -> Any:
        return tvm.transform.Sequential(operators(plan))(module)

    module = tvm.transform.Sequential([AttachLevels()])(module)
    own = {name.name_hint for name in module.get_global_vars()}
    module = tvm.transform.Sequential(attachments(plan, reuse))(module)
    for name, function in module.functions_items():
        if isinstance(function, tirx.PrimFunc) and name.name_hint not in own:
            module[name] = function.with_attr(FOR_RUNTIMES, True)
    others = {
        name: function
        for name, function in module.functions_items()
        if isinstance(function, tirx.PrimFunc) or name.name_hint not in own
    }
    # What applications name a library by is in no kernel.
    prefix = (module.attrs or {}).get(PREFIX)
    module = module if prefix is None else module.without_attr(PREFIX)
    text = tvm.ir.save_json(tvm.IRModule(others, attrs=module.attrs))
    module = reuse.module("operators", [sorted(plan.stock), origin, text], module, lowered)
    module = module if prefix is None else module.with_attr(PREFIX, prefix)
    return tvm.transform.Sequential(virtual_machine(plan))(module)


def _dump(plan: PassInputs, phase: int) -> list[Any]:
    return [] if plan.dump is None else [Dump(plan.dump / f"debug-phase{phase}.py")]
