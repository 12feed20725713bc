"""The compilation pipeline: one list of passes, from the exported module to VM code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tvm
from tvm import relax

from llmbuild.compiler.devices.device import Device
from llmbuild.compiler.passes.annotate import AnnotateForMemoryPlanning
from llmbuild.compiler.passes.cuda_graph import AnnotateForCudaGraph, RewriteForCudaGraph
from llmbuild.compiler.passes.dump import Dump
from llmbuild.compiler.passes.embedding_allocator import AttachEmbeddingAllocator
from llmbuild.compiler.passes.kv_cache import AttachKVCache
from llmbuild.compiler.passes.legalize import LegalizeOnce
from llmbuild.compiler.passes.logits import AttachLogitProcessors
from llmbuild.compiler.passes.metadata import AttachMetadata
from llmbuild.compiler.passes.row_moves import AttachRowMoves
from llmbuild.compiler.passes.sampling import AttachSampling
from llmbuild.compiler.passes.shape_functions import OrderShapeFunctions
from llmbuild.compiler.passes.softmax import AttachSoftmaxWithTemperature
from llmbuild.compiler.passes.symbols import AttachSymbols
from llmbuild.compiler.schedules import drop_pattern_attributes
from llmbuild.models.kv_cache import KVCacheLayout


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
    """The passes in their order."""
    transform, kernels = relax.transform, plan.device.kernels()

    def dump(phase: int) -> list[Any]:
        return [] if plan.dump is None else [Dump(plan.dump / f"debug-phase{phase}.py")]

    return [
        # Functions of the library besides the model's own.
        AttachKVCache(plan.kv_cache, plan.target, None if "attention" in plan.stock else kernels.attention),
        AttachSoftmaxWithTemperature(kernels.softmax, plan.metadata["active_vocab_size"]),
        AttachLogitProcessors(kernels.logits),
        AttachEmbeddingAllocator(plan.metadata["prefill_chunk_size"]),
        AttachRowMoves(kernels.row_moves, plan.kv_cache.dtype),
        AttachSampling(plan.device.sampling),
        AnnotateForMemoryPlanning(plan.bounds),
        *([AnnotateForCudaGraph()] if plan.cuda_graph else []),
        tvm.tirx.transform.BindTarget(plan.target),
        *dump(0),
        # From operators to TIR functions.
        *plan.device.operators(),
        LegalizeOnce(),
        transform.AnnotateTIROpPattern(),
        transform.FoldConstant(),
        transform.FuseOps(),
        transform.FuseTIR(),
        *dump(2),
        transform.DeadCodeElimination(),
        drop_pattern_attributes(),
        *dump(3),
        # From TIR functions to loops for the device.
        *plan.device.schedules(plan.target, stock="linears" in plan.stock),
        *dump(4),
        # From Relax to calls of the VM, with planned memory.
        transform.RewriteDataflowReshape(),
        transform.DeadCodeElimination(),
        transform.ToNonDataflow(),
        transform.RemovePurityChecking(),
        transform.CallTIRRewrite(),
        transform.StaticPlanBlockMemory(),
        AttachMetadata(plan.metadata),
        *dump(5),
        *([RewriteForCudaGraph()] if plan.cuda_graph else []),
        transform.LowerAllocTensor(),
        transform.KillAfterLastUse(),
        transform.LowerRuntimeBuiltin(),
        transform.VMShapeLower(),
        AttachSymbols(),
        OrderShapeFunctions(),
    ]


def pipeline(plan: PassInputs) -> Any:
    """The pipeline as one pass, for `relax.build`."""
    return tvm.transform.Sequential(passes(plan))
